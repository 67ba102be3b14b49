#!/bin/bash
# The reader of the output goes away (| head): no "internal error ... report it", and the matches
# that were asked for are written.
python=python
d=$(mktemp -d)
PYTHONUNBUFFERED=1 "$python" match.py assets/demo0.jpg assets/demo1.jpg max_side=128 \
    output="$d/m.h5" picture=null 2> "$d/err" | true
cat "$d/err"
! grep -q "internal error" "$d/err" && [ -s "$d/m.h5" ]
