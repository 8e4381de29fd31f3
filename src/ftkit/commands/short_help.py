"""The short help of ``fit``, ``validate``, ``test`` and ``predict``: the options that people use, in groups."""

_ALL = """\
usage: ftkit {command} [options]

{help}

Configuration
  --config FILE                      a config file; repeat it for several, later ones win
  --print_config                     print the resulting configuration and exit
  --model CLASS                      TextClassifier, GPT2Classifier, CausalLMSFT, VLMSFT, VLMDPO,
                                     VLMYesNo, or your own
  --data CLASS                       TextClassificationDataModule, SpamDataModule, TextDataModule,
                                     VLMDataModule, or your own
  --seed_everything N                the seed (123)

Model: --model.help CLASS lists the options of a class
  --model.base_model NAME            a hub id, a folder, a GGUF file, or demo
  --model.trainable all|lora|...     which parameters are trained
  --model.quantization 8bit|nf4      quantize the frozen weights
"""
_FIT = """\
  --model.adapter CLASS              any peft method, as peft.LoraConfig; --model.adapter.r RANK
  --model.optimizer CLASS            such as AdamW; --model.optimizer.lr RATE
  --model.scheduler NAME             such as linear or cosine; --model.warmup FRACTION
"""
_DATA = """\

Data: --data.help CLASS lists the options of a class
  --data.train, .val, .test SOURCE   files, or datasets of the hub
  --data.columns '{{text: review, label: stars}}'
  --data.batch_size N                examples in a batch
"""
_PREDICTION = """\
  --data.predict SOURCE              texts without labels (the test split)
"""
_TRAINING = """\

Training
  --trainer.max_epochs N
  --trainer.accumulate_grad_batches N
  --trainer.gradient_clip_val X
  --model_selection best|last        the checkpoint that is kept as the model (last)
  --monitor METRIC                   the metric that decides which is best (val/loss)
  --early_stopping.patience N        stop after N validations without improvement
  --resume                           continue from the newest checkpoint
"""
_EVALUATION = """\

Which run: the newest one of the config, or the newest one where no config is given
  --ckpt_path FILE|FOLDER            a checkpoint, or the folder of its run
  --untrained                        evaluate the model before any training
"""
_CONTROLS = """\
  --controls                         predict with blank and with swapped images too
"""
_MACHINE = """\

Machine and output
  --trainer.default_root_dir FOLDER  the run folder{folder}
  --trainer.accelerator cpu|gpu|auto
  --trainer.devices N                how many of them
  --trainer.precision bf16-mixed     16-mixed, 32-true, ...
  --trainer.fast_dev_run true        run one batch of every stage and keep nothing
  --matmul_precision high            faster products of float32 matrices

Everything else: ftkit {command} --help_all
"""


def short_help(command: str, help: str) -> str:
    """Return the help of a command of Lightning's."""
    fit = command == "fit"
    of_stage = [_TRAINING] if fit else [_EVALUATION, _CONTROLS if command == "test" else ""]
    data = [_DATA, _PREDICTION if command == "predict" else ""]
    parts = [_ALL, _FIT if fit else "", *data, *of_stage, _MACHINE]
    return "".join(parts).format(command=command, help=help, folder=" (a new one, runs/DATE-TIME-NAME)" if fit else "")
