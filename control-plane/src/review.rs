//! What the API server thinks of service account tokens, asked by TokenReview.
//!
//! It alone knows whether the pod that a token was made for is still there. Its answers hold for a
//! moment. While it is away a token that it believed stays believed until it expires: nothing that it
//! could say against it can be heard, and proxies that connect again must not be turned away for that.
//! Everybody else is told to try again. Tokens are kept as hashes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::serve::metrics::Metrics;
use crate::serve::readiness::Readiness;
use crate::token::{AUDIENCE, Caller, TokenError, expiry, reviewed};

/// How long it is not asked again about a token that it believed, in seconds.
const BELIEVED: u64 = 30;
/// The same of one that it did not believe: it may not have heard of the pod yet.
const REFUSED: u64 = 2;
/// Most answers kept.
const ANSWERS: usize = 10_000;
/// Questions at once.
const AT_ONCE: usize = 32;
/// Longest wait for an answer, those before in the queue included.
const PATIENCE: Duration = Duration::from_secs(8);
/// Pause between questions whether we may ask.
const PAUSE: Duration = Duration::from_secs(2);
/// What readiness calls this.
const REVIEWS: &str = "token reviews";

/// Asks the API server, and remembers.
pub struct Reviewer {
    client: Client,
    answers: Mutex<Answers>,
    room: Semaphore,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
}

impl std::fmt::Debug for Reviewer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Reviewer").finish_non_exhaustive()
    }
}

impl Reviewer {
    /// One that asks `client`; not ready until it was allowed to ask once, see [`Self::begin`].
    #[must_use]
    pub fn new(client: Client, metrics: Arc<Metrics>, readiness: Arc<Readiness>) -> Self {
        readiness.waits(REVIEWS, "not asked for yet");
        let (answers, room) = (Mutex::default(), Semaphore::new(AT_ONCE));
        Self { client, answers, room, metrics, readiness }
    }

    /// Finds out whether we may ask, until we may, or `stop`.
    pub async fn begin(self: Arc<Self>, stop: CancellationToken) {
        let mut said = String::new();
        loop {
            match self.ask("no.token.atall").await {
                Ok(_) => {
                    self.readiness.met(REVIEWS);
                    return;
                }
                Err(reason) => {
                    if reason != said {
                        tracing::error!(reason, "no token can be checked");
                    }
                    self.readiness.waits(REVIEWS, &reason);
                    said = reason;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Who a token is of, at `now` (seconds since 1970).
    ///
    /// # Errors
    /// Why it is not believed, or not yet.
    pub async fn review(&self, token: &str, now: u64) -> Result<Caller, TokenError> {
        let expires = expiry(token, now)?;
        let print = Print::of(token);
        let known = self.answers.lock().get(&print, now);
        let former = match known {
            Known::Fresh(answer) => return answer,
            Known::Former(caller) => Some(caller),
            Known::Nothing => None,
        };
        match self.ask(token).await {
            Ok(status) => {
                let answer = reviewed(status);
                let result = if answer.is_ok() { "believed" } else { "refused" };
                self.metrics.count_review(result);
                self.answers.lock().put(print, answer.clone(), (now, expires));
                answer
            }
            Err(reason) => {
                self.metrics.count_review("unanswered");
                former.ok_or(TokenError::Unavailable(reason))
            }
        }
    }

    /// The API server's answer, or why there is none.
    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, String> {
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: token.to_owned(),
            },
            status: None,
        };
        let asked = async {
            let _permit = self.room.acquire().await.ok();
            let api: Api<TokenReview> = Api::all(self.client.clone());
            api.create(&PostParams::default(), &review).await
        };
        let answer = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(review)) => Ok(review.status.unwrap_or_default()),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                Err(format!("{}; the chart `lateend` grants it", status.message))
            }
            Ok(Err(error)) => Err(format!("the API server does not answer: {error}")),
            Err(_) => Err(format!("the API server did not answer within {PATIENCE:?}")),
        };
        match &answer {
            Ok(_) => self.readiness.well(REVIEWS),
            Err(reason) => self.readiness.remark(REVIEWS, reason),
        }
        answer
    }
}

/// The hash of a token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Print([u8; 32]);

impl Print {
    fn of(token: &str) -> Self {
        let mut print = [0; 32];
        print.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(print)
    }
}

/// Answers of the API server, by token.
#[derive(Debug, Default)]
struct Answers {
    by_token: HashMap<Print, Answer>,
}

#[derive(Debug)]
struct Answer {
    answer: Result<Caller, TokenError>,
    /// Until when the API server is not asked again.
    fresh: u64,
    /// Until when it may be of use.
    useful: u64,
}

/// What is known of a token.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    /// The API server just said so.
    Fresh(Result<Caller, TokenError>),
    /// It believed it a while ago.
    Former(Caller),
    /// Nothing.
    Nothing,
}

impl Answers {
    fn get(&self, print: &Print, now: u64) -> Known {
        match self.by_token.get(print) {
            Some(it) if now < it.fresh => Known::Fresh(it.answer.clone()),
            Some(Answer { answer: Ok(caller), useful, .. }) if now < *useful => {
                Known::Former(caller.clone())
            }
            _ => Known::Nothing,
        }
    }

    fn put(
        &mut self,
        print: Print,
        answer: Result<Caller, TokenError>,
        (now, expires): (u64, u64),
    ) {
        if self.by_token.len() >= ANSWERS && !self.by_token.contains_key(&print) {
            self.make_room(now);
        }
        let (fresh, useful) = match &answer {
            Ok(_) => ((now + BELIEVED).min(expires), expires),
            Err(_) => (now + REFUSED, now + REFUSED),
        };
        self.by_token.insert(print, Answer { answer, fresh, useful });
    }

    /// Forgets what is of no use, and if that is nothing, a tenth: what was asked longest ago.
    fn make_room(&mut self, now: u64) {
        self.by_token.retain(|_, answer| now < answer.useful);
        if self.by_token.len() < ANSWERS {
            return;
        }
        let mut times: Vec<u64> = self.by_token.values().map(|answer| answer.fresh).collect();
        times.sort_unstable();
        let bound = times.get(ANSWERS / 10).copied().unwrap_or(u64::MAX);
        let mut left = ANSWERS / 10;
        self.by_token.retain(|_, answer| {
            let goes = left > 0 && answer.fresh <= bound;
            left -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{ANSWERS, Answers, BELIEVED, Known, Print, REFUSED};
    use crate::token::{Caller, ServiceAccount, TokenError};

    const NOW: u64 = 1_800_000_000;

    fn caller(name: &str) -> Caller {
        ServiceAccount { namespace: "shop".to_owned(), name: name.to_owned() }.into()
    }

    #[test]
    fn an_answer_is_fresh_for_a_moment_and_useful_until_the_token_expires() {
        let mut answers = Answers::default();
        let print = || Print::of("a");
        answers.put(print(), Ok(caller("cart")), (NOW, NOW + 600));
        let at = |answers: &Answers, seconds| answers.get(&print(), NOW + seconds);
        assert_eq!(at(&answers, BELIEVED - 1), Known::Fresh(Ok(caller("cart"))));
        assert_eq!(at(&answers, BELIEVED), Known::Former(caller("cart")));
        assert_eq!(at(&answers, 599), Known::Former(caller("cart")));
        assert_eq!(at(&answers, 600), Known::Nothing);
        assert_eq!(answers.get(&Print::of("b"), NOW), Known::Nothing);
        answers.put(print(), Ok(caller("cart")), (NOW, NOW + 5));
        assert_eq!(at(&answers, 5), Known::Nothing, "never longer than the token");
    }

    #[test]
    fn a_refusal_takes_back_and_is_soon_asked_for_again() {
        let mut answers = Answers::default();
        let print = || Print::of("a");
        answers.put(print(), Ok(caller("cart")), (NOW, NOW + 600));
        let refused = Err(TokenError::Refused("gone".to_owned()));
        answers.put(print(), refused.clone(), (NOW + 40, NOW + 600));
        assert_eq!(answers.get(&print(), NOW + 41), Known::Fresh(refused));
        assert_eq!(answers.get(&print(), NOW + 40 + REFUSED), Known::Nothing);
    }

    #[test]
    fn there_are_never_too_many_answers() {
        let mut answers = Answers::default();
        for number in 0..ANSWERS as u64 * 2 {
            let print = Print::of(&number.to_string());
            answers.put(print, Ok(caller("cart")), (NOW + number / 100, NOW + 9_000));
            assert!(answers.by_token.len() <= ANSWERS);
        }
        let last = Print::of(&(ANSWERS * 2 - 1).to_string());
        assert_ne!(answers.get(&last, NOW + 200), Known::Nothing, "the youngest stay");
        assert_eq!(answers.get(&Print::of("0"), NOW + 200), Known::Nothing);
        answers.make_room(NOW + 9_000);
        assert!(answers.by_token.is_empty());
    }
}
