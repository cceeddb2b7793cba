//! Handshake, tuning and heartbeats.

use std::time::Duration;

use amq_protocol::protocol::{AMQPClass, connection};
use lapin::{ErrorKind, options::BasicAckOptions, types::FieldTable};
use tokio::time::Instant;
use warren_client_tests::{
    raw::{RawConnection, Tuning},
    scenario::{Session, body, connect, next, scenario},
};

#[test]
fn the_broker_proposes_the_usual_limits() {
    scenario(async |scenario| {
        let limits = scenario.connection().configuration();
        assert_eq!((limits.channel_max(), limits.frame_max(), limits.heartbeat()), (2047, 131_072, 60));
    });
}

#[test]
fn a_client_may_ask_for_less() {
    scenario(async |scenario| {
        let query = "?channel_max=2&frame_max=8192&heartbeat=7";
        let connection = connect(&format!("{}{query}", scenario.uri())).await;
        let limits = connection.configuration();
        assert_eq!((limits.channel_max(), limits.frame_max(), limits.heartbeat()), (2, 8192, 7));
        let _first = connection.create_channel().await.unwrap();
        let _second = connection.create_channel().await.unwrap();
        let third = connection.create_channel().await.unwrap_err();
        assert!(matches!(third.kind(), ErrorKind::ChannelsLimitReached), "{third}");
        connection.close(200, "done".into()).await.unwrap();
    });
}

#[test]
fn limits_above_the_brokers_are_refused() {
    scenario(async |scenario| {
        let usual = Tuning::default();
        let cases = [
            (
                Tuning { channel_max: 3000, ..usual },
                "channel_max = 3000 is higher than the maximum allowed value (2047)",
            ),
            (
                Tuning { channel_max: 0, ..usual },
                "channel_max = 0 (no limit) is higher than the maximum allowed value (2047)",
            ),
            (
                Tuning { frame_max: 200_000, ..usual },
                "frame_max = 200000 is higher than the maximum allowed value (131072)",
            ),
        ];
        for (tuning, text) in cases {
            let mut raw = RawConnection::start(scenario.uri(), tuning).await;
            // Some brokers close without a word.
            let Some(answer) = raw.try_read_method().await else {
                continue;
            };
            let AMQPClass::Connection(connection::AMQPMethod::Close(close)) = answer else {
                panic!("not refused: {text}, but: {answer:?}");
            };
            assert_eq!(close.reply_code, 530);
            assert_eq!(close.reply_text.as_str(), format!("NOT_ALLOWED - negotiated {text}"));
        }
    });
}

#[test]
fn an_idle_connection_lives_on_heartbeats() {
    scenario(async |scenario| {
        let connection = connect(&format!("{}?heartbeat=1", scenario.uri())).await;
        let channel = Session::confirming(&connection).await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let mut consumer = channel.consume(&queue, FieldTable::default()).await;
        // Longer than either side waits for a silent peer.
        tokio::time::sleep(Duration::from_secs(5)).await;
        channel.publish("", queue.as_str(), "still here").await;
        let message = next(&mut consumer).await;
        assert_eq!(body(&message), "still here");
        message.ack(BasicAckOptions::default()).await.unwrap();
        connection.close(200, "done".into()).await.unwrap();
    });
}

#[test]
fn a_silent_client_gets_heartbeats_and_is_dropped() {
    scenario(async |scenario| {
        let mut raw = RawConnection::open(scenario.uri(), Tuning { heartbeat: 1, ..Tuning::default() }).await;
        let silent_since = Instant::now();
        let mut heartbeats = 0;
        while let Some(frame) = raw.read_frame().await {
            assert_eq!(frame, [8, 0, 0, 0, 0, 0, 0, 0xCE], "a heartbeat and no close frame");
            heartbeats += 1;
        }
        let silent = silent_since.elapsed();
        assert!(heartbeats >= 2, "{heartbeats} heartbeats");
        assert!((Duration::from_secs(1)..Duration::from_secs(6)).contains(&silent), "dropped after {silent:?}");
    });
}

#[test]
fn many_channels_on_one_connection() {
    scenario(async |scenario| {
        let connection = scenario.connect().await;
        let mut channels = Vec::new();
        for _ in 0..500 {
            channels.push(Session::open(&connection).await);
        }
        let queue = channels[0].exclusive_queue(FieldTable::default()).await;
        for channel in &channels {
            channel.publish("", queue.as_str(), "x").await;
        }
        channels[0].wait_ready(&queue, 500).await;
        connection.close(200, "done".into()).await.unwrap();
    });
}
