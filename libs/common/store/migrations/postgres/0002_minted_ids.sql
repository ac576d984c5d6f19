-- Ids that upstream accounts minted (responses, items, conversations, files) and
-- who can be asked for them: routing's memory once Redis forgot. An id may be
-- told again by a later answer; the newest row counts. The primary key absorbs
-- replays and finds an id with its newest row, so no other index is needed.
-- A row is as old as its request, and partitioned by day like it.
CREATE TABLE minted_ids (
    id          text COLLATE "C" NOT NULL,
    created_at  timestamptz NOT NULL,
    request_id  text COLLATE "C" NOT NULL,
    resource_id text NOT NULL,
    account_id  text NOT NULL,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE minted_ids_default PARTITION OF minted_ids DEFAULT;
