from s2s.config import OptimConfig, TrainerConfig
