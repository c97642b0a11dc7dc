"""How a trainer hands its weights to a server over a GPU: NCCL, a group of torch's, CUDA IPC."""
