"""Several processes of one site that train one model together, one per GPU: PyTorch's DDP or FSDP2, started by
torchrun.

The trainer stays as it is and talks to an engine: ``engine`` is that engine, ``group`` starts torchrun and commands its
processes, ``rank`` is what each of them does, ``wire`` is how commands travel. Numbers travel over a local socket, flat
vectors through memory that both sides map.

No process is ever left behind: each watches its socket in a thread of its own, and ends at once when the trainer does,
however the trainer ended; torchrun ends when all of them have.
"""
