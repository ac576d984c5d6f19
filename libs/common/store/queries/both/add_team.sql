-- No row if there is such a team.
INSERT INTO teams (id, name, policy, key_defaults, budget, created_at)
VALUES (
    :id, :name, :policy::jsonb, :key_defaults::jsonb, :budget::jsonb, :created_at::timestamptz
)
ON CONFLICT (id) DO NOTHING
RETURNING id, name, policy, key_defaults, budget, created_at
