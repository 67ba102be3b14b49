"""Systems built on the matcher's attention besides matching, one folder each."""
