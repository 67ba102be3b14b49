#!/bin/bash
# A collection started without a standard error (as by some daemons) works.
d=$(mktemp -d); mkdir "$d/p"; cp assets/demo0.jpg "$d/p/a.jpg"; cp assets/demo1.jpg "$d/p/b.jpg"
python=python
"$python" match.py pairs="$d/p" output="$d/run" max_side=128 threads=1 2>&-
code=$?
echo "exit code $code"
[ $code = 0 ] || exit 1
