//! The service `dashwire.v1.Programs` as commands ask it.

use anyhow::{Result, anyhow};
use dash_proto::dashwire::v1::programs_client::ProgramsClient;
use tonic::Status;
use tonic::transport::Channel;

use super::remote::{MAX_MESSAGE, connect, runtime};
use crate::cli::Connection;

/// One call of a daemon.
pub(super) fn call<R>(
    address: &str,
    connection: &Connection,
    ask: impl AsyncFnOnce(ProgramsClient<Channel>) -> Result<R, Status>,
) -> Result<R> {
    runtime()?.block_on(async {
        let channel = connect(address, connection).await?;
        let client = ProgramsClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        // The daemon's words, as they are: a verifier's message has lines of its own.
        let refused =
            |status: Status| anyhow!("{address}: {:?}: {}", status.code(), status.message());
        ask(client).await.map_err(refused)
    })
}
