"""Static sites that train one model without a coordinator: the same codecs and outer optimizers over
``torch.distributed``, every member taking the outer step itself.

Each site starts an agent, and they find one another at one of them::

    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes 1:8 --nproc-per-node 1 --max-restarts 100 \\
        --rdzv-backend c10d --rdzv-endpoint HOST:PORT --rdzv-id RUN --rdzv-conf last_call_timeout=5 \\
        -m windfall.site_trainer.collective --site SITE --data-dir DIR --state-dir DIR --rounds 100

``boundary`` decides what members do when a group forms and when a round ends, ``holding`` is what a member has at a
boundary, in memory and on disk, ``exchange`` carries bytes between them, ``stop`` hears the agent's word that the group
forms anew, and ``member`` is one member at work.
"""
