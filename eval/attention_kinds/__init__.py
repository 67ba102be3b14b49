"""All kinds of attention in one backbone: what each costs and what each learns from equal images.

`python -m eval.attention_kinds` writes a table and a figure.
"""
