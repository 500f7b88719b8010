//! The targets that objectives make of examples.

use loram_io::data::{Example, Sequence, Target};
use loram_io::{Checkpoint, ModelConfig};
use loram_nn::{HeadKind, LoadOptions, Loss, Model};
use loram_train::Objective;
use loram_train::objective::{Task, batch_and_loss, find};
use std::path::PathBuf;

fn model(name: &str, head: HeadKind) -> Model {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(name);
    Model::load(&Checkpoint::open(&dir).unwrap(), &ModelConfig::load(&dir).unwrap(), &LoadOptions::new(head)).unwrap()
}

fn objective(name: &str) -> &'static dyn Objective {
    find(name).unwrap()
}

fn counted(loss: &dyn Loss) -> Vec<bool> {
    (0..loss.rows()).map(|row| loss.counts(row)).collect()
}

#[test]
fn a_token_is_to_predict_the_next_one_that_counts() {
    let mut model = model("llama", HeadKind::LanguageModel);
    let one = |ids: &[u32], mask: &[bool]| {
        Example::of(Sequence { input_ids: ids.to_vec(), loss_mask: mask.to_vec(), ..Sequence::default() })
    };
    let examples = [one(&[5, 6, 7], &[false, false, true]), one(&[8, 9], &[true, true])];
    assert_eq!(examples[0].labels(), [-100, 7, -100]);
    let (batch, mut loss) = batch_and_loss(Task::new(objective("causal_lm"), &[]), &mut model, &examples).unwrap();
    assert_eq!(counted(&*loss), [false, true, false, true, false]);
    assert_eq!(loss.counted(), 2);
    // the loss is that of the logits, and nothing of one pass is left for the next
    let logits = model.logits(&batch).unwrap();
    let vocab = logits.len() / batch.tokens.len();
    let nats = |row: usize, label: usize| {
        let row = &logits[row * vocab..(row + 1) * vocab];
        row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln() - f64::from(row[label])
    };
    let expected = nats(1, 7) + nats(3, 9);
    for _ in 0..2 {
        let found = model.evaluate(&batch, &mut *loss).unwrap().loss;
        assert_eq!(found.counted, 2);
        assert!((found.loss_sum - expected).abs() < 1e-4, "{} {expected}", found.loss_sum);
    }
}

#[test]
fn heads_need_targets_of_their_kind() {
    let one = |target: &Option<Target>| {
        let sequence = Sequence { input_ids: vec![1, 2, 3], ..Sequence::default() };
        Example { target: target.clone(), ..Example::of(sequence) }
    };
    let (class, value) = (Some(Target::Class(1)), Some(Target::Value(0.5)));
    let classes = Some(Target::Classes(vec![true, false, true]));
    for (name, fits, others) in [
        ("classification", &class, [&value, &classes, &None]),
        ("regression", &value, [&class, &classes, &None]),
        ("multi_label_classification", &classes, [&class, &value, &None]),
    ] {
        let mut model = model("bert", HeadKind::Pooled { outputs: 3 });
        let (_, loss) = batch_and_loss(Task::new(objective(name), &[]), &mut model, &[one(fits), one(fits)]).unwrap();
        assert_eq!(counted(&*loss), [true, true]);
        for other in others {
            let error =
                batch_and_loss(Task::new(objective(name), &[]), &mut model, &[one(fits), one(other)]).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
