from transformers import Trainer
from transformers.trainer import ALL_LAYERNORM_LAYERS, get_parameter_names, has_length  # noqa: F401
from trl.trainer import DPOTrainer  # noqa: F401  (the tree's own)


class LLaVATrainer(Trainer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.trainable_params = [name for name, p in self.model.named_parameters() if p.requires_grad]
        if not self.trainable_params:
            raise ValueError("No trainable parameters found.")

    def _get_train_sampler(self):
        return super()._get_train_sampler()

    def _save_checkpoint(self, model, trial, metrics=None):
        super()._save_checkpoint(model, trial, metrics)

    def _inner_training_loop(self, batch_size=None, args=None, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        """A loop of its own, with the fork's data and arguments in mind."""
        assert self.args.trainer_mode == "regular" and hasattr(self.train_dataset, "modality_lengths")
        return super()._inner_training_loop(batch_size, args, resume_from_checkpoint, trial, ignore_keys_for_eval)
