//! At which members a load is made: at all of them, at the leader, or at its followers.

use holdfast_proto::etcdserverpb::{StatusRequest, StatusResponse};
use prost::Message;

use crate::error::Error;
use crate::grpc::{Connection, Frame, Reading, STATUS};

/// Members, by what they are at the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// All of them.
    Everywhere,
    /// The leader alone.
    Leader,
    /// All others.
    Followers,
}

impl Place {
    /// The endpoints to use. Where there is one server only, it is that one.
    ///
    /// Errors: those of asking who leads; nobody leads.
    pub(crate) async fn endpoints(self, all: &[String]) -> Result<Vec<String>, Error> {
        if self == Self::Everywhere || all.len() == 1 {
            return Ok(all.to_vec());
        }
        let mut chosen = Vec::new();
        let mut leaders = 0;
        for endpoint in all {
            let leads = leads(endpoint).await?;
            leaders += usize::from(leads);
            if leads == (self == Self::Leader) {
                chosen.push(endpoint.clone());
            }
        }
        if leaders == 1 { Ok(chosen) } else { Err(Error::Answer("not one member says that it leads")) }
    }
}

async fn leads(endpoint: &str) -> Result<bool, Error> {
    let (connection, _driver) = Connection::open(endpoint, Reading::Everything).await?;
    let answer = connection.caller(STATUS).call(Frame::of(&StatusRequest::default())).await?;
    let status = StatusResponse::decode(answer)?;
    Ok(status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_server_is_in_every_place() {
        let one = ["nobody:1".to_owned()];
        for place in [Place::Everywhere, Place::Leader, Place::Followers] {
            assert_eq!(place.endpoints(&one).await.unwrap(), one, "without asking");
        }
    }
}
