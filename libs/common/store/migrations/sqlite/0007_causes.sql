-- What made a request leave a resource: how the attempt before ended, or, of a first
-- attempt, why the home of its session or state was passed over. Null: nothing was
-- left, or nobody said so yet when the row was written.
ALTER TABLE decisions ADD COLUMN cause TEXT;

-- Each move from one resource to another before the first byte: which one was left,
-- why the next was chosen, how the request ended, and what made it leave.
DROP VIEW failovers;
CREATE VIEW failovers AS
SELECT substr(later.created_at, 1, 10) AS day,
       earlier.resource_id AS left_resource_id,
       later.resource_id,
       later.reason,
       requests.outcome,
       requests.status_code,
       count(*) AS times,
       later.cause
FROM decisions AS later
JOIN decisions AS earlier
  ON earlier.request_id = later.request_id AND earlier.attempt = later.attempt - 1
LEFT JOIN requests ON requests.id = later.request_id
WHERE later.attempt > 1
GROUP BY 1, 2, 3, 4, 5, 6, 8;

-- How often each cause made requests leave a resource, how many requests that were,
-- how many of them were served all the same, and their share of the day's requests.
CREATE VIEW failovers_by_cause AS
SELECT moved.day,
       moved.cause,
       moved.times,
       moved.requests,
       moved.completed,
       round(1.0 * moved.requests / failover_rate.requests, 4) AS rate
FROM (
    SELECT substr(decisions.created_at, 1, 10) AS day,
           cause,
           count(*) AS times,
           count(DISTINCT request_id) AS requests,
           count(DISTINCT request_id) FILTER (WHERE outcome = 'completed') AS completed
    FROM decisions
    LEFT JOIN requests ON requests.id = decisions.request_id
    WHERE cause IS NOT NULL OR decisions.attempt > 1
    GROUP BY 1, 2
) AS moved
LEFT JOIN failover_rate ON failover_rate.day = moved.day;
