-- No query uses it: minted_ids knows who created a response. (events_by_kind stays, unlike in
-- SQLite: a narrower one would be built over all partitions while nothing can be stored.)
DROP INDEX requests_by_response;
