#!/bin/sh
# The commands for the published tables with T5-base, from the repository's root, in an order that works.
# All together 48 hours on one H200: predicted, from two measured steps (15.0 ms of 32 examples, 40.3 ms of 128 examples) and 20 s a start.
# A command that was cut goes on when it is given again; a single run with --resume FOLDER.
# Made by python -m benchmarks.replication tables

# the six source prompts: 6 runs, 0.9 h
python train.py @recipes/source-prompts.args

# finetune: small sets: 24 runs, 0.4 h
python train.py @recipes/finetune.args --task stsb mrpc rte cola boolq cb wic wsc --separately --seeds 42 43 44 --out runs/finetune-small

# finetune: medium sets: 12 runs, 0.7 h
python train.py @recipes/finetune.args --task multirc scitail winogrande paws --separately --seeds 42 43 44 --epochs 10 --out runs/finetune-medium

# finetune: large sets: 5 runs, 2.0 h
python train.py @recipes/finetune.args --task mnli qqp qnli sst2 yelp --separately --seeds 42 --epochs 10 --out runs/finetune-large

# finetune: mrqa sets: 4 runs, 1.4 h
python train.py @recipes/finetune.args --task nq hotpotqa searchqa newsqa --separately --seeds 42 --epochs 10 --train-examples 100000 --out runs/finetune-mrqa

# adapter: small sets: 24 runs, 0.4 h
python train.py @recipes/adapter.args --task stsb mrpc rte cola boolq cb wic wsc --separately --seeds 42 43 44 --out runs/adapter-small

# adapter: medium sets: 12 runs, 0.7 h
python train.py @recipes/adapter.args --task multirc scitail winogrande paws --separately --seeds 42 43 44 --epochs 10 --out runs/adapter-medium

# adapter: large sets: 5 runs, 2.0 h
python train.py @recipes/adapter.args --task mnli qqp qnli sst2 yelp --separately --seeds 42 --epochs 10 --out runs/adapter-large

# adapter: mrqa sets: 4 runs, 1.4 h
python train.py @recipes/adapter.args --task nq hotpotqa searchqa newsqa --separately --seeds 42 --epochs 10 --train-examples 100000 --out runs/adapter-mrqa

# bitfit: small sets: 24 runs, 0.4 h
python train.py @recipes/bitfit.args --task stsb mrpc rte cola boolq cb wic wsc --separately --seeds 42 43 44 --out runs/bitfit-small

# bitfit: medium sets: 12 runs, 0.7 h
python train.py @recipes/bitfit.args --task multirc scitail winogrande paws --separately --seeds 42 43 44 --epochs 10 --out runs/bitfit-medium

# bitfit: large sets: 5 runs, 2.0 h
python train.py @recipes/bitfit.args --task mnli qqp qnli sst2 yelp --separately --seeds 42 --epochs 10 --out runs/bitfit-large

# bitfit: mrqa sets: 4 runs, 1.4 h
python train.py @recipes/bitfit.args --task nq hotpotqa searchqa newsqa --separately --seeds 42 --epochs 10 --train-examples 100000 --out runs/bitfit-mrqa

# prompt-single: small sets: 24 runs, 0.5 h
python train.py @recipes/prompt-single.args --task stsb mrpc rte cola boolq cb wic wsc --separately --seeds 42 43 44 --out runs/prompt-single-small

# prompt-single: medium sets: 12 runs, 0.8 h
python train.py @recipes/prompt-single.args --task multirc scitail winogrande paws --separately --seeds 42 43 44 --epochs 10 --out runs/prompt-single-medium

# prompt-single: large sets: 5 runs, 2.4 h
python train.py @recipes/prompt-single.args --task mnli qqp qnli sst2 yelp --separately --seeds 42 --epochs 10 --out runs/prompt-single-large

# prompt-single: mrqa sets: 4 runs, 1.2 h
python train.py @recipes/prompt-single.args --task nq hotpotqa searchqa newsqa --separately --seeds 42 --epochs 10 --train-examples 100000 --out runs/prompt-single-mrqa

# spot-mnli: small sets: 24 runs, 0.5 h
python train.py @recipes/spot-mnli.args --task stsb mrpc rte cola boolq cb wic wsc --separately --seeds 42 43 44 --out runs/spot-mnli-small

# spot-mnli: medium sets: 12 runs, 0.8 h
python train.py @recipes/spot-mnli.args --task multirc scitail winogrande paws --separately --seeds 42 43 44 --epochs 10 --out runs/spot-mnli-medium

# spot-mnli: large sets: 5 runs, 2.4 h
python train.py @recipes/spot-mnli.args --task mnli qqp qnli sst2 yelp --separately --seeds 42 --epochs 10 --out runs/spot-mnli-large

# spot-mnli: mrqa sets: 4 runs, 1.2 h
python train.py @recipes/spot-mnli.args --task nq hotpotqa searchqa newsqa --separately --seeds 42 --epochs 10 --train-examples 100000 --out runs/spot-mnli-mrqa

# attempt-single: small sets: 24 runs, 0.5 h
python train.py @recipes/attempt-single.args --task stsb mrpc rte cola boolq cb wic wsc --separately --seeds 42 43 44 --out runs/attempt-single-small

# attempt-single: medium sets: 12 runs, 0.8 h
python train.py @recipes/attempt-single.args --task multirc scitail winogrande paws --separately --seeds 42 43 44 --epochs 10 --out runs/attempt-single-medium

# attempt-single: large sets: 5 runs, 2.4 h
python train.py @recipes/attempt-single.args --task mnli qqp qnli sst2 yelp --separately --seeds 42 --epochs 10 --out runs/attempt-single-large

# attempt-single: mrqa sets: 4 runs, 1.2 h
python train.py @recipes/attempt-single.args --task nq hotpotqa searchqa newsqa --separately --seeds 42 --epochs 10 --train-examples 100000 --out runs/attempt-single-mrqa

# G, pre-trained on the sources: 1 run, 0.1 h
python train.py @recipes/pretrain-attention.args

# ATTEMPT-m: glue: 3 runs, 1.6 h
python train.py @recipes/attempt-glue.args --seeds 42 43 44 --load-attention runs/attention-t5-base --out runs/multi-glue

# ATTEMPT-m: glue, G not pre-trained: 3 runs, 1.6 h
python train.py @recipes/attempt-glue.args --seeds 42 43 44 --out runs/multi-glue-new

# ATTEMPT-m: superglue: 3 runs, 0.7 h
python train.py @recipes/attempt-superglue.args --seeds 42 43 44 --load-attention runs/attention-t5-base --out runs/multi-superglue

# ATTEMPT-m: superglue, G not pre-trained: 3 runs, 0.7 h
python train.py @recipes/attempt-superglue.args --seeds 42 43 44 --out runs/multi-superglue-new

# ATTEMPT-m: mrqa: 3 runs, 3.5 h
python train.py @recipes/attempt-mrqa.args --seeds 42 43 44 --load-attention runs/attention-t5-base --out runs/multi-mrqa

# ATTEMPT-m: mrqa, G not pre-trained: 3 runs, 3.5 h
python train.py @recipes/attempt-mrqa.args --seeds 42 43 44 --out runs/multi-mrqa-new

# ATTEMPT-m: others: 3 runs, 1.1 h
python train.py @recipes/attempt-others.args --seeds 42 43 44 --load-attention runs/attention-t5-base --out runs/multi-others

# ATTEMPT-m: others, G not pre-trained: 3 runs, 1.1 h
python train.py @recipes/attempt-others.args --seeds 42 43 44 --out runs/multi-others-new

# few-shot, k = 4: 9 runs, 0.1 h
python train.py @recipes/few-shot.args --task boolq cb scitail --shots 4 --out runs/shots-4

# few-shot, k = 16: 9 runs, 0.1 h
python train.py @recipes/few-shot.args --task boolq cb scitail --shots 16 --out runs/shots-16

# few-shot, k = 32: 6 runs, 0.0 h
python train.py @recipes/few-shot.args --task boolq scitail --shots 32 --out runs/shots-32

# ablation: no-target: 9 runs, 0.2 h
python train.py @recipes/attempt-single.args --task boolq mrpc rte --separately --seeds 42 43 44 --no-target --out runs/ablation-no-target

# ablation: constant: 9 runs, 0.2 h
python train.py @recipes/attempt-single.args --task boolq mrpc rte --separately --seeds 42 43 44 --attention constant --out runs/ablation-constant

# ablation: freeze-norm: 9 runs, 0.2 h
python train.py @recipes/attempt-single.args --task boolq mrpc rte --separately --seeds 42 43 44 --freeze-norm --out runs/ablation-freeze-norm

# ablation: pool-pads: 9 runs, 0.2 h
python train.py @recipes/attempt-single.args --task boolq mrpc rte --separately --seeds 42 43 44 --pool-pads --out runs/ablation-pool-pads

# ablation: learn-temperature: 9 runs, 0.2 h
python train.py @recipes/attempt-single.args --task boolq mrpc rte --separately --seeds 42 43 44 --learn-temperature --out runs/ablation-learn-temperature

# ablation: single: 9 runs, 0.2 h
python train.py @recipes/attempt-single.args --task boolq mrpc rte --separately --seeds 42 43 44 --source-prompts runs/mnli-prompt-t5-base --out runs/ablation-single

# ablation: attention-lr: 9 runs, 0.2 h
python train.py @recipes/attempt-single.args --task boolq mrpc rte --separately --seeds 42 43 44 --attention-lr 0.1 --out runs/ablation-attention-lr

# SPoT by retrieval: 45 runs, 1.0 h
python train.py --task mrpc rte cola boolq cb --separately --seeds 42 43 44 --method spot --model t5-base --transfer best --top-k 3 --early-steps 500 --optimizer adamw --lr 0.3 --warmup 500 --batch-size 32 --epochs 20 --out runs/spot-retrieval

# the replication's ATTEMPT: 24 runs, 0.5 h
python train.py @recipes/attempt-replication.args --task stsb mrpc rte cola boolq cb wic wsc --separately --seeds 42 43 44 --out runs/replication

# prompt tuning on SQuAD: 1 run, 0.8 h
python train.py @recipes/squad-replication.args --out runs/squad-0.3

# the same, lower rate: 1 run, 0.8 h
python train.py @recipes/squad-replication.args --lr 1e-3 --out runs/squad-0.001

# the same, AdamW: 1 run, 0.8 h
python train.py @recipes/squad-replication.args --lr 1e-3 --optimizer adamw --out runs/squad-adamw

# fine-tuning on SQuAD: 1 run, 0.1 h
python train.py @recipes/squad-finetune.args --out runs/squad-finetune
