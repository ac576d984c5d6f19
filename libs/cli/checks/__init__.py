"""What `up` refuses to start with, and what `doctor` reports beside that."""
