SELECT * FROM payloads WHERE request_id = :id AND created_at = :created_at
