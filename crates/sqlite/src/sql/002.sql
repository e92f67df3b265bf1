-- The worker of each attempt: 16 bytes, none if it is not known.
ALTER TABLE jobs ADD COLUMN worker BLOB;        -- of the latest attempt
ALTER TABLE attempts ADD COLUMN worker BLOB;
