-- What is stored already of a batch's requests. The bounds on created_at let
-- the planner leave out every other day's partition.
SELECT id, created_at, session_id, outcome, total_tokens
FROM requests
WHERE id = ANY(%(ids)s::text[]) AND created_at BETWEEN %(oldest)s AND %(newest)s
