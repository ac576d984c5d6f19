-- One row; run for each row of a batch. A replayed dead letter changes nothing.
INSERT INTO dead_letters (
    id, entry_id, event_id, kind, reason, data, created_at, gateway_id
)
VALUES (
    :id, :entry_id, :event_id, :kind, :reason, :data, :created_at, :gateway_id
)
ON CONFLICT (id) DO NOTHING
