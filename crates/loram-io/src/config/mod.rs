//! The contents of `config.json` and `generation_config.json`, as transformers 4 and 5 write them: the settings of a
//! model, and the names of its modules. [`crate::family`] reads them.

mod activation;
mod decoder;
mod encoder;
mod fields;
mod generation;
mod head;
mod model;
mod modules;
mod not_a_model;
mod quantisation;
mod rope;

pub use activation::Activation;
pub use decoder::{ConvolutionConfig, DecoderConfig, ExpertConfig, Gate, LayerKind, Mixer, NormKind, QkNorm};
pub use encoder::{EncoderConfig, EncoderLayer, RelativePositions};
pub use fields::CONFIG_FILE;
pub(crate) use fields::{Fields, read_object};
pub use generation::GenerationConfig;
pub use head::{CheckpointHead, HeadKind, HeadLabels, PoolingMode, ProblemType};
pub use model::{ModelConfig, head_entries};
pub use modules::{
    ClassifierModules, ConvolutionModules, DecoderModules, EncoderModules, ExpertModules, FamilyNames, HeadLayer,
    HeadLayout, HeadNorm, MlpModules, Pooling, Projections, RelativeModules,
};
pub(crate) use not_a_model::not_a_model;
pub(crate) use quantisation::{AwqSettings, GptqSettings, Quantisation};
pub(crate) use rope::{PartialRotary, RopeDefaults, parse as parse_rope, parse_by_type as parse_ropes_by_type};
pub use rope::{QueryGrowth, RopeConfig, RopeScaling};
