//! Trains an adapter, looks at what it says, and saves it: `cargo run --release -p loram-train --example train_adapter`.

use loram_train::{Event, Observe, Session, SessionOptions, TrainConfig, Trainer, generate};

fn main() -> loram_train::Result<()> {
    let config = TrainConfig::from_yaml(
        "model_name_or_path: assets/tiny-llama-en
train_data: demo:restaurants?seed=0&n=1000
output_dir: runs/example
overwrite_output_dir: true
init_lora_weights: loram
r: 16
learning_rate: 2e-3
num_train_epochs: 2
per_device_train_batch_size: 16",
    )?;
    let mut progress = Observe(|event: &Event| {
        if let Event::Log(log) = event {
            println!("step {:4}  loss {:.4}", log.step, log.loss.unwrap_or(f64::NAN));
        }
    });
    let summary = Trainer::new(config)?.run(&mut progress)?;

    // the adapter is an ordinary PEFT folder; here it is read back
    let adapter = summary.adapter.map(|path| path.display().to_string());
    println!("loss {:.4} at the end; the adapter is in {}", summary.last_loss, adapter.as_deref().unwrap_or("-"));
    let options = SessionOptions { model: summary.model, adapter, ..SessionOptions::default() };
    let session = Session::open(&options, &mut ())?;
    let prompt = "name : The Eagle | type : pub | food : Italian | price : cheap | area : riverside =>";
    let how = session.generate_options();
    let made = generate(&session.model, &session.base.tokenizer, prompt, &how, &mut |_| true)?;
    println!("{prompt}\n{}", made.text.trim());
    Ok(())
}
