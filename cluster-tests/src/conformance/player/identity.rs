//! Who the player is: the tokens of the logins of a script, and when they are sent.
//!
//! Tokens are sent only while auth is on: etcd 3.5.1 refuses every token while it is off, and a stream that was opened with
//! one takes no watchers any more. Such streams are left when auth is switched off.

use std::collections::BTreeMap;

use prost_reflect::DynamicMessage;
use tonic::Status;

use super::Player;
use crate::conformance::script::{Ask, Call};

/// What is sent for who has not logged in.
const UNKNOWN_TOKEN: &str = "nobody.1";

/// The logins of a play.
#[derive(Debug, Default)]
pub(super) struct Identity {
    /// Auth is on, as far as the answers say.
    is_on: bool,
    tokens: BTreeMap<String, String>,
}

impl Identity {
    /// Whether members look at who asks.
    pub(super) fn is_asked(&self) -> bool {
        self.is_on
    }

    /// What is sent with the call.
    pub(super) fn token_for(&self, call: &Call) -> Option<&str> {
        let user = call.user.as_ref().filter(|_| self.is_on)?;
        Some(self.tokens.get(user).map_or(UNKNOWN_TOKEN, String::as_str))
    }
}

impl Player<'_> {
    /// Takes from an answer what it says of who is who.
    pub(super) fn identify(&mut self, call: &Call, answer: &DynamicMessage) {
        match (call.method.name(), &call.ask) {
            ("AuthEnable", _) => self.identity.is_on = true,
            ("AuthDisable", _) => {
                self.identity = Identity::default();
                self.leave_named();
            }
            (_, Ask::Login(name)) => {
                let token = answer.get_field_by_name("token");
                let token = token.and_then(|token| token.as_str().map(str::to_owned));
                self.identity.tokens.insert(name.clone(), token.unwrap_or_default());
            }
            _ => {}
        }
    }

    /// Leaves the streams that were opened in somebody's name.
    fn leave_named(&mut self) {
        let lines = &mut self.lines;
        self.names.retain(|_, line| {
            let line = &mut lines[*line];
            if line.has_token {
                line.leave();
            }
            !line.has_token
        });
    }

    /// What the player's own writes need: a token of root while auth is on.
    pub(super) async fn root_token(&mut self) -> Result<Option<String>, Status> {
        if !self.identity.is_on {
            return Ok(None);
        }
        if let Some(token) = self.identity.tokens.get("root") {
            return Ok(Some(token.clone()));
        }
        let token = self.members.root().await?;
        self.identity.tokens.insert("root".to_owned(), token.clone());
        Ok(Some(token))
    }
}
