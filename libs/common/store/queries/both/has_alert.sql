-- One row if the alert is there.
SELECT id FROM alerts WHERE id = :id
