-- The name of each job's owner, where the application keeps it, and an index of the jobs of an owner, sorted by seq.
ALTER TABLE jobs ADD COLUMN owner_label TEXT;
CREATE INDEX jobs_by_owner ON jobs (owner) WHERE owner IS NOT NULL;
