//! A command-line client: submits a job to `progress`, follows it and shows the progress. Ctrl-C cancels the job and waits
//! for its end. Exits with 0 if the job completed, otherwise with 1.
//!
//! On a terminal it shows a bar, elsewhere a line for each state:
//!
//! ```console
//! $ cargo run -p async-endpoints-recipes --bin watch -- http://127.0.0.1:8080 8
//! ██████████████░░░░░░░░░░░░░░░░░░░░░░░░░░  37 % 1s InProgress packing photo 6 of 8
//! $ cargo run -p async-endpoints-recipes --bin watch -- http://127.0.0.1:8080 10 | cat
//! InProgress   0 % packing photo 1 of 10
//! InProgress  20 % packing photo 3 of 10
//! InProgress  40 % packing photo 5 of 10
//! InProgress  60 % packing photo 7 of 10
//! InProgress  80 % packing photo 9 of 10
//! Completed  100 % packing photo 10 of 10
//! 10 photos are packed
//! ```
//!
//! The output after Ctrl-C:
//!
//! ```console
//! requesting cancellation
//! InProgress  10 % packing photo 11 of 100
//! …
//! Canceled    19 % discarded 19 photos
//! job 01a22606-884b-742a-b43b-111bf4aea753 (Pack) is Canceled: JOB_CANCELED: The job was canceled
//! ```

use std::{
    io::{self, IsTerminal},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use async_endpoints_client::{Client, JobState, Retries};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::ctrl_c;

type Failure = Box<dyn std::error::Error>;

#[derive(serde::Serialize)]
struct Album {
    photos: u64,
}

#[derive(serde::Deserialize)]
struct Archive {
    photos: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match watch().await {
        Ok(archive) => {
            println!("{} photos are packed", archive.photos);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Submits a job and follows it until its end. The first Ctrl-C requests cancellation, the second stops following.
async fn watch() -> Result<Archive, Failure> {
    let mut args = std::env::args().skip(1);
    let service = args.next().unwrap_or("http://127.0.0.1:8080".to_owned());
    let photos = args.next().map_or(Ok(50), |photos| photos.parse())?;
    let retries = Retries { give_up_after: Duration::from_secs(5), ..Retries::default() };
    let client = Client::builder(&service).retries(retries).build()?;
    let job = client.submit::<_, Archive>("/api/pack", &Album { photos }).await?;
    let (display, mut states, mut stop, mut is_canceled) = (Display::new()?, job.follow(), pin!(ctrl_c()), false);
    loop {
        tokio::select! {
            // Ctrl-C is polled first, so that its handler is installed before any output.
            biased;
            _ = &mut stop => {
                if is_canceled {
                    return Err("stopped following; cancellation was requested".into());
                }
                display.note("requesting cancellation");
                job.cancel().await?;
                stop.set(ctrl_c());
                is_canceled = true;
            }
            state = states.next() => {
                let state = state.ok_or("the job has no end")??;
                display.show(&state);
                if let Some(result) = state.into_result() {
                    return Ok(result?);
                }
            }
        }
    }
}

/// A bar on a terminal, otherwise a line for each state.
enum Display {
    Bar(ProgressBar),
    Lines,
}

impl Display {
    fn new() -> Result<Self, Failure> {
        if !io::stdout().is_terminal() {
            return Ok(Self::Lines);
        }
        let style = ProgressStyle::with_template("{bar:40} {pos:>3} % {elapsed} {msg}")?;
        let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stdout());
        Ok(Self::Bar(bar.with_style(style)))
    }

    fn show(&self, job: &JobState<Archive>) {
        let (percent, message) = (job.percent().unwrap_or(0.0), job.message().unwrap_or_default());
        match self {
            Self::Bar(bar) => {
                bar.set_message(format!("{} {message}", job.status));
                bar.set_position(percent as u64);
                if job.status.is_terminal() {
                    bar.abandon();
                }
            }
            Self::Lines => println!("{:10} {percent:3.0} % {message}", job.status.as_str()),
        }
    }

    fn note(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.println(text),
            Self::Lines => println!("{text}"),
        }
    }
}
