"""Pure mathematics of talking rarely: fp32 tensors on the CPU in, fp32 tensors out, no I/O and no clock.

``layout`` says how a model lies in one flat vector, ``codec`` how that vector travels, ``merge`` how contributions
become one, ``outer`` how the global model moves, ``schedule`` when a round ends.

Where bytes are dear, ``compressor`` is how a gradient becomes few of them and what it owes for the next round,
``contribution`` writes and reads them as messages of ``wire``, and ``contributors``, ``clip`` and ``rda`` are how such
contributions become one.

``rule`` is one way to synchronise, ``outerlog`` how its rounds reach those who hold an earlier model (``entry`` and
``mergedform`` are its bytes), ``fragments`` and ``overlap`` how sites train on meanwhile, ``staleness`` what a late
contribution weighs, ``advice`` how often to synchronise and in which codec.

A pseudo-gradient is Δ = base − local, so that an outer optimizer descends along it.

Every result is the same to the last bit whatever the chunking, the number of threads or the width of the processor's
vectors: arithmetic that replicas must agree on is written as single elementwise IEEE 754 operations (one kernel per
multiplication and addition), because a fused multiply-add rounds once where two operations round twice, and kernels
fuse in their vector body but not always in their tail.
"""
