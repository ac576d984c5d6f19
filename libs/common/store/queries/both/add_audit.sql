INSERT INTO audit_log (
    id, created_at, actor, address, peer, action, object_type, object_id, changes
)
VALUES (
    :id, :created_at::timestamptz, :actor, :address, :peer, :action, :object_type,
    :object_id, :changes::jsonb
)
