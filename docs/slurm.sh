#!/bin/bash
# A run on two nodes of eight GPUs: sbatch docs/slurm.sh. The same job, given again or requeued, goes on with the run.
#SBATCH --job-name=attempt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
# SIGTERM comes 120 s before the time is up: all processes finish the step, rank 0 saves.
set -eu

out=runs/mnli-prompt-11b # on a file system that all nodes see, as the cache ($XDG_CACHE_HOME) may be
words="--task mnli --method prompt --model t5-11b --optimizer adafactor --out $out"
if [ -e "$out/state.pt" ]; then
    words="--resume $out"
fi

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "$SLURM_JOB_ID" \
    -- train.py $words
