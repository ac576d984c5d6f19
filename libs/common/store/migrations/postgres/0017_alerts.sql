-- Alerts for the webhook. id: of the event. body: what is sent. due_at: not before.
CREATE TABLE alerts (
    id           text COLLATE "C" PRIMARY KEY,
    created_at   timestamptz NOT NULL,
    body         text NOT NULL,
    attempts     integer NOT NULL DEFAULT 0,
    due_at       timestamptz NOT NULL,
    delivered_at timestamptz
);
CREATE INDEX alerts_waiting ON alerts (due_at) WHERE delivered_at IS NULL;
