-- Deletes a dead letter only if its event is in its table; until then it is the only
-- durable copy. A stored row with outcome `interrupted` does not count, unless the dead
-- letter says the same.
DELETE FROM dead_letters
WHERE id = :id
  AND CASE kind
      WHEN 'request' THEN EXISTS (
          SELECT 1 FROM requests
          WHERE requests.id = dead_letters.event_id
            AND (requests.outcome <> 'interrupted' OR :interrupted)
      )
      WHEN 'decision' THEN EXISTS (
          SELECT 1 FROM decisions WHERE decisions.id = dead_letters.event_id
      )
      ELSE EXISTS (
          SELECT 1 FROM events
          WHERE events.id = dead_letters.event_id AND events.kind = dead_letters.kind
      )
  END
RETURNING id
