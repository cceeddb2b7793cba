//! An AMQP connection without a client library: frames in, frames out, and nothing sent on its own.

use amq_protocol::{
    frame::{AMQPFrame, gen_frame, parse_frame},
    protocol::{AMQPClass, channel, connection},
    types::FieldTable,
    uri::AMQPUri,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::scenario::within;

const FRAME_HEADER_SIZE: usize = 7;

/// What to answer to connection.tune.
#[derive(Clone, Copy)]
pub struct Tuning {
    /// Channels; 0 means no limit.
    pub channel_max: u16,
    /// Bytes; 0 means no limit.
    pub frame_max: u32,
    /// Seconds; 0 means none.
    pub heartbeat: u16,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { channel_max: 2047, frame_max: 131_072, heartbeat: 0 }
    }
}

/// A connection; see the module.
pub struct RawConnection {
    stream: TcpStream,
}

impl RawConnection {
    /// Connects and goes on until tune-ok and connection.open are sent; the answer has not been read yet.
    pub async fn start(uri: &str, tuning: Tuning) -> Self {
        let uri: AMQPUri = uri.parse().expect("an AMQP URI");
        let address = (uri.authority.host.as_str(), uri.authority.port);
        let mut connection = Self { stream: TcpStream::connect(address).await.expect("connect") };
        connection.write(b"AMQP\0\0\x09\x01").await;
        connection.read_method().await;
        let user = uri.authority.userinfo;
        let start_ok = connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: "PLAIN".into(),
            response: format!("\0{}\0{}", user.username, user.password).into(),
            locale: "en_US".into(),
        };
        connection.send(0, AMQPClass::Connection(connection::AMQPMethod::StartOk(start_ok))).await;
        connection.read_method().await;
        let Tuning { channel_max, frame_max, heartbeat } = tuning;
        let tune_ok = connection::TuneOk { channel_max, frame_max, heartbeat };
        connection.send(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune_ok))).await;
        let open = connection::Open { virtual_host: uri.vhost.as_str().into() };
        connection.send(0, AMQPClass::Connection(connection::AMQPMethod::Open(open))).await;
        connection
    }

    /// Connects and opens channel 1.
    pub async fn open(uri: &str, tuning: Tuning) -> Self {
        let mut connection = Self::start(uri, tuning).await;
        let answer = connection.read_method().await;
        assert!(matches!(answer, AMQPClass::Connection(connection::AMQPMethod::OpenOk(_))), "{answer:?}");
        connection.send(1, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))).await;
        let answer = connection.read_method().await;
        assert!(matches!(answer, AMQPClass::Channel(channel::AMQPMethod::OpenOk(_))), "{answer:?}");
        connection
    }

    /// Sends a method frame.
    pub async fn send(&mut self, channel: u16, method: AMQPClass) {
        let frame = AMQPFrame::Method(channel, method);
        let bytes = gen_frame(&frame)(Vec::new().into()).expect("a frame").into_inner().0;
        self.write(&bytes).await;
    }

    /// The next method; frames of other kinds fail the test.
    pub async fn read_method(&mut self) -> AMQPClass {
        self.try_read_method().await.expect("a frame before the end of the connection")
    }

    /// The next method; `None` when the broker has closed the connection. Frames of other kinds fail the test.
    pub async fn try_read_method(&mut self) -> Option<AMQPClass> {
        let bytes = self.read_frame().await?;
        match parse_frame(bytes.as_slice()).expect("a well-formed frame").1 {
            AMQPFrame::Method(_, method) => Some(method),
            frame => panic!("not a method frame: {frame:?}"),
        }
    }

    /// The bytes of the next frame; `None` when the broker has closed the connection.
    pub async fn read_frame(&mut self) -> Option<Vec<u8>> {
        within(async {
            let mut bytes = vec![0; FRAME_HEADER_SIZE];
            self.stream.read_exact(&mut bytes).await.ok()?;
            let size = u32::from_be_bytes(bytes[3..].try_into().expect("4 bytes"));
            bytes.resize(FRAME_HEADER_SIZE + size as usize + 1, 0);
            self.stream.read_exact(&mut bytes[FRAME_HEADER_SIZE..]).await.ok()?;
            Some(bytes)
        })
        .await
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("write");
    }
}
