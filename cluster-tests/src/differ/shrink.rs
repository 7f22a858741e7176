//! Makes a script smaller as long as it still shows what it showed: delta debugging over its lines.
//!
//! First the end is cut off, by halves, then pieces are taken out, large ones first, until no single line can go.

/// What shrinking came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The lines that are left.
    pub lines: Vec<String>,
    /// How often a smaller script was tried.
    pub plays: usize,
}

/// Shrinks `lines`, for which `shows` holds, in at most `plays_max` tries.
pub async fn shrink<E>(
    lines: Vec<String>,
    plays_max: usize,
    mut shows: impl AsyncFnMut(&[String]) -> Result<bool, E>,
) -> Result<Shrunk, E> {
    let mut state = Shrunk { lines, plays: 0 };
    cut_end(&mut state, plays_max, &mut shows).await?;
    take_out(&mut state, plays_max, &mut shows).await?;
    Ok(state)
}

/// The shortest beginning that shows it: found by halves, because what shows stays when more follows.
async fn cut_end<E>(
    state: &mut Shrunk,
    plays_max: usize,
    shows: &mut impl AsyncFnMut(&[String]) -> Result<bool, E>,
) -> Result<(), E> {
    let (mut short, mut long) = (0, state.lines.len());
    while long - short > 1 && state.plays < plays_max {
        let middle = short.midpoint(long);
        state.plays += 1;
        if shows(&state.lines[..middle]).await? {
            long = middle;
        } else {
            short = middle;
        }
    }
    state.lines.truncate(long);
    Ok(())
}

async fn take_out<E>(
    state: &mut Shrunk,
    plays_max: usize,
    shows: &mut impl AsyncFnMut(&[String]) -> Result<bool, E>,
) -> Result<(), E> {
    let mut piece = state.lines.len().div_ceil(2);
    while piece > 0 {
        let mut is_smaller = false;
        // From the end: later lines depend on earlier ones.
        let mut end = state.lines.len();
        while end > 0 && state.plays < plays_max {
            let start = end.saturating_sub(piece);
            let rest: Vec<String> = [&state.lines[..start], &state.lines[end..]].concat();
            state.plays += 1;
            if !rest.is_empty() && shows(&rest).await? {
                state.lines = rest;
                is_smaller = true;
            }
            end = start;
        }
        if !is_smaller || piece > 1 {
            piece /= 2;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    async fn shrunk(needed: &[&str], plays_max: usize) -> Shrunk {
        let lines = (0..300).map(|number| format!("line {number}")).collect();
        let shows = async |lines: &[String]| {
            Ok::<_, Infallible>(needed.iter().all(|line| lines.iter().any(|have| have == line)))
        };
        shrink(lines, plays_max, shows).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_needed_is_left() {
        let needed = ["line 3", "line 77", "line 78", "line 250"];
        let result = shrunk(&needed, 10_000).await;
        assert_eq!(result.lines, needed);
        assert!(result.plays < 150, "{}", result.plays);
    }

    #[tokio::test]
    async fn the_number_of_plays_is_bounded() {
        let result = shrunk(&["line 3", "line 250"], 12).await;
        assert_eq!(result.plays, 12);
        assert!(result.lines.len() < 300 && result.lines.contains(&"line 250".to_owned()));
    }
}
