//! Events as they happen, for whoever keeps reading.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use hyper::body::Frame;
use serde_json::{Value, json};

use crate::broker::events::{Feed, Reading};

use super::super::answer::{Answer, Content, Failure};
use super::super::call::Call;
use super::super::fields::table_to_json;

type Next = Pin<Box<dyn Future<Output = (Option<Reading>, Feed)> + Send>>;

/// A body that has one line for each event, and no end.
struct Lines {
    next: Next,
}

/// Every event from now on is a line of JSON: `event` is what happened, the rest are its fields. A reader who is too slow
/// gets a line `{"lagged": COUNT}` for those that are missing.
pub(crate) async fn follow(call: Call) -> Result<Answer, Failure> {
    let body = Body::new(Lines { next: next(call.management.broker.feed()) });
    Ok(Answer::with(StatusCode::OK, Content::Stream("application/x-ndjson", body)))
}

fn next(mut feed: Feed) -> Next {
    Box::pin(async move { (feed.next().await, feed) })
}

fn line(reading: &Reading) -> String {
    let value = match reading {
        Reading::Lagged(count) => json!({"lagged": count}),
        Reading::Event(notice) => {
            let mut value = json!({"event": notice.key});
            if let (Value::Object(line), Value::Object(fields)) = (&mut value, table_to_json(&notice.fields)) {
                line.extend(fields);
            }
            value
        }
    };
    format!("{value}\n")
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let (reading, feed) = ready!(self.next.as_mut().poll(context));
        let Some(reading) = reading else { return Poll::Ready(None) };
        self.next = next(feed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(line(&reading))))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::events::Notice;

    #[test]
    fn a_line_has_the_event_and_its_fields() {
        let notice = Notice::new("queue.deleted").text("name", "jobs");
        assert_eq!(line(&Reading::Event(Arc::new(notice))), "{\"event\":\"queue.deleted\",\"name\":\"jobs\"}\n");
        assert_eq!(line(&Reading::Lagged(7)), "{\"lagged\":7}\n");
    }
}
