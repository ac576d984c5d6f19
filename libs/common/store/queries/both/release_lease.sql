DELETE FROM leases WHERE role = :role AND holder = :holder RETURNING role
