"""What budgets were spent on, summed anew when Redis cannot know it."""
