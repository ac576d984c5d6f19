-- Holds the number of a migration of another branch. Delete this file at the merge.
SELECT 1;
