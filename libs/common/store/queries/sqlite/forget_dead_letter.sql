-- Only when the event it holds is in its table: until then the letter is the only
-- copy that no crash can take. A request that merely counts as interrupted is not
-- there yet, unless the letter says no more than that.
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
