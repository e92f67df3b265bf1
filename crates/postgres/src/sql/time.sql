-- Time and order: the store's clock, order numbers, and buckets of histograms.

-- The store's clock: that of the server, in microseconds since the Unix epoch.
CREATE OR REPLACE FUNCTION ae.now_us() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

-- The smallest order number of a time: milliseconds since 2025, and 18 bits for the order within the millisecond.
CREATE OR REPLACE FUNCTION ae.order_at(us bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
$$ SELECT least(greatest(us / 1000 - 1735689600000, 0), 4398046511103) << 18 $$;

-- The first of 128 order numbers that no other call gets.
CREATE OR REPLACE FUNCTION ae.next_order(us bigint) RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT ae.order_at(us) + (nextval('ae.places') & 262143) $$;

-- The bucket of a duration: one for each number below 16, then 16 for each power of two.
CREATE OR REPLACE FUNCTION ae.octave(us bigint) RETURNS int LANGUAGE sql IMMUTABLE AS
$$ SELECT width_bucket(us / 16, ARRAY[2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072,
    262144, 524288, 1048576, 2097152, 4194304, 8388608, 16777216, 33554432, 67108864, 134217728, 268435456, 536870912,
    1073741824, 2147483648, 4294967296, 8589934592, 17179869184, 34359738368, 68719476736, 137438953472, 274877906944,
    549755813888, 1099511627776, 2199023255552, 4398046511104, 8796093022208, 17592186044416, 35184372088832,
    70368744177664, 140737488355328, 281474976710656, 562949953421312]::bigint[]) $$;

CREATE OR REPLACE FUNCTION ae.bucket(us bigint) RETURNS smallint LANGUAGE sql IMMUTABLE AS
$$ SELECT (ae.octave(us) * 16 + (us >> ae.octave(us)))::smallint $$;
