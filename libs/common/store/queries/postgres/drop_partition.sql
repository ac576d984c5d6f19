SELECT drop_partition_v1(%(child)s) AS dropped
