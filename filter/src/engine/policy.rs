//! Decides which rule a request falls under, and whether a token's rights satisfy it.

use tollgate_shared::token::Claims;

use super::denial::Denial;
use super::path::{self, Ambiguous, RequestPath};
use crate::config::{PathMatch, Requirement, Rule, Segment};

/// The first rule for this method and path. A path that an application which decodes escapes or ignores case would take
/// for one of another rule is refused: `/ADMIN/x` must not get to `/admin/x` by the rule for everything else.
pub(super) fn find<'c>(
    rules: &'c [Rule],
    method: &[u8],
    path: &RequestPath<'_>,
) -> Result<Option<&'c Rule>, Ambiguous> {
    let first = |fits: &dyn Fn(&PathMatch) -> bool| {
        rules.iter().position(|rule| {
            let for_method =
                rule.methods.is_empty() || rule.methods.iter().any(|known| known.as_bytes() == method);
            for_method && fits(&rule.path)
        })
    };
    let place = first(&|wanted| path_fits(wanted, path.as_str()));
    if let Some(folded) = path.folded()
        && first(&|wanted| path_fits(&fold(wanted), &folded)) != place
    {
        return Err(Ambiguous);
    }
    Ok(place.and_then(|place| rules.get(place)))
}

fn fold(wanted: &PathMatch) -> PathMatch {
    match wanted {
        PathMatch::Exact(text) => PathMatch::Exact(text.to_ascii_lowercase()),
        PathMatch::Prefix(text) => PathMatch::Prefix(text.to_ascii_lowercase()),
        PathMatch::Template(segments) => {
            let fold = |segment: &Segment| match segment {
                Segment::Text(text) => Segment::Text(text.to_ascii_lowercase()),
                Segment::Any | Segment::Subject | Segment::Rest => segment.clone(),
            };
            PathMatch::Template(segments.iter().map(fold).collect())
        }
    }
}

fn path_fits(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(text) => path == text,
        PathMatch::Prefix(text) => path.starts_with(text.as_str()),
        PathMatch::Template(segments) => template_fits(segments, path),
    }
}

fn template_fits(segments: &[Segment], path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    for segment in segments {
        let fits = match (segment, parts.next()) {
            (Segment::Rest, _) => return true,
            (_, None) => false,
            (Segment::Text(text), Some(part)) => part == text,
            (Segment::Any | Segment::Subject, Some(part)) => !part.is_empty(),
        };
        if !fits {
            return false;
        }
    }
    parts.next().is_none()
}

/// Checks scopes, roles and ownership.
pub(super) fn authorise(
    requirement: &Requirement,
    wanted: &PathMatch,
    path: &RequestPath<'_>,
    claims: &Claims,
) -> Result<(), Denial> {
    let Requirement { scopes, roles, owner } = requirement;
    if !scopes.iter().all(|scope| claims.scopes.contains(scope)) {
        return Err(Denial::InsufficientScope { scopes: scopes.join(" ") });
    }
    if !roles.is_empty() && !roles.iter().any(|role| claims.roles.contains(role)) {
        return Err(Denial::LacksRole);
    }
    let Some(owner) = owner else { return Ok(()) };
    let exempt = owner.unless_role.as_ref().is_some_and(|role| claims.roles.contains(role));
    let owned =
        || subject_segment(wanted, path).is_some_and(|subject| subject == claims.subject.as_str().as_bytes());
    if exempt || owned() { Ok(()) } else { Err(Denial::NotOwner) }
}

/// What stands in the path where the template has `{subject}`.
fn subject_segment(wanted: &PathMatch, path: &RequestPath<'_>) -> Option<Vec<u8>> {
    let PathMatch::Template(segments) = wanted else { return None };
    let place = segments.iter().position(|segment| *segment == Segment::Subject)?;
    path::decode(path.segments().nth(place)?)
}
