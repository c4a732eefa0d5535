//! Writes one operation of the document: its parameters, body, answers and who may call it.

use tollgate_shared::id::ID_BYTES_MAX;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Ref, Schema, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{RefOr, Required, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::schemas::{OAuthErrorSchema, ProblemSchema};
use super::{Carried, Description, JSON, PROBLEM, Refusals, Shape};
use crate::access::Access;
use crate::once::KEY_BYTES_MAX;

/// Names and ids have no control characters.
const NAME_PATTERN: &str = r"^[^\x00-\x1f\x7f-\x9f]+$";

/// A parameter of the query.
pub(super) fn query(name: &str, description: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

fn name_schema() -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String);
    text.min_length(Some(1)).max_length(Some(ID_BYTES_MAX)).pattern(Some(NAME_PATTERN))
}

/// A parameter that is a name.
pub(super) fn name_parameter(name: &str, description: &str) -> Parameter {
    query(name, description, name_schema())
}

/// A parameter that is a whole number.
pub(super) fn number_parameter(name: &str, description: &str) -> Parameter {
    query(name, description, ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)))
}

/// The operation of a route.
pub(super) fn operation(description: &Description, access: Access, once: bool) -> Operation {
    let mut operation = OperationBuilder::new()
        .operation_id(Some(description.id))
        .summary(Some(description.summary))
        .tag(tag(description.path));
    if let Access::Operator(permission) = access {
        let says = format!("Needs the permission `{}`.", permission.name());
        operation = operation.description(Some(says));
    }
    for parameter in path_parameters(description.path).into_iter().chain(description.query.clone()) {
        operation = operation.parameter(parameter);
    }
    for parameter in header_parameters(description, once) {
        operation = operation.parameter(parameter);
    }
    if let Some((media, shape)) = &description.body {
        let content = ContentBuilder::new().schema(Some(shape.reference())).build();
        let body = RequestBodyBuilder::new().content(*media, content).required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    operation = operation.response(description.answer.0.to_string(), answer(description, once));
    for status in description.refused(access, once) {
        operation = operation.response(status.to_string(), refusal(status, description.refusals));
    }
    for requirement in security(access) {
        operation = operation.security(requirement);
    }
    operation.build()
}

fn tag(path: &str) -> &'static str {
    [
        ("/v1/admin/", "operators"),
        ("/v1/edge/", "edges"),
        ("/oauth2/", "oauth"),
        ("/.well-known/", "metadata"),
        ("/v1/status", "metadata"),
    ]
    .into_iter()
    .find(|(prefix, _)| path.starts_with(prefix))
    .map_or_else(|| if path.starts_with("/v1/") { "people" } else { "operations" }, |(_, tag)| tag)
}

fn security(access: Access) -> Vec<SecurityRequirement> {
    let of = |name: &str| SecurityRequirement::new(name, Vec::<String>::new());
    match access {
        Access::Public => Vec::new(),
        Access::Operator(_) => vec![of("operator")],
        Access::Edge => vec![of("edge")],
        // A public client proves nothing.
        Access::User => vec![of("user")],
        Access::OAuthClient => vec![of("client"), of("operator"), SecurityRequirement::default()],
    }
}

fn path_parameters(path: &str) -> Vec<Parameter> {
    path.split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            ParameterBuilder::new()
                .name(name.trim_start_matches('*'))
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(name_schema()))
                .build()
        })
        .collect()
}

fn header_parameters(description: &Description, once: bool) -> Vec<Parameter> {
    let header = |name: &str, says: &str, schema: ObjectBuilder| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(says))
            .schema(Some(schema))
            .build()
    };
    let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    let mut headers = Vec::new();
    if once {
        let key = text().max_length(Some(KEY_BYTES_MAX)).pattern(Some("^[!-~]+$"));
        headers.push(header(
            "Idempotency-Key",
            "The same request with the same key is carried out once",
            key,
        ));
    }
    if description.if_match {
        let tag = text().pattern(Some(r#"^(\*|(W/)?"[!#-~]*")$"#));
        headers.push(header("If-Match", "The version that is meant, as ETag had it", tag));
    }
    headers
}

fn text_header(says: &str) -> Header {
    let text = ObjectBuilder::new().schema_type(Type::String);
    HeaderBuilder::new().schema(Some(text)).description(Some(says)).build()
}

fn answer(description: &Description, once: bool) -> ResponseBuilder {
    let (status, carried) = &description.answer;
    let says = if *status == 201 { "It was made" } else { "It was done" };
    let mut answer = ResponseBuilder::new().description(says);
    for (name, says) in &description.headers {
        answer = answer.header(*name, text_header(says));
    }
    if once {
        answer = answer.header("Idempotent-Replayed", text_header("`true` if it was made before"));
    }
    let json = |shape: &Shape| ContentBuilder::new().schema(Some(shape.reference())).build();
    let text = || ContentBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::String))).build();
    match carried {
        Carried::Nothing => answer,
        Carried::Json(shape) => answer.content(JSON, json(shape)),
        Carried::Either(shape, media) => answer.content(JSON, json(shape)).content(*media, text()),
        Carried::Media(media) => media.iter().fold(answer, |answer, media| {
            let is_json = *media == JSON || media.ends_with("+json");
            let any = ContentBuilder::new().schema(Some(serde_json::Value::schema())).build();
            answer.content(*media, if is_json { any } else { text() })
        }),
    }
}

fn refusal(status: u16, refusals: Refusals) -> ResponseBuilder {
    let says = match status {
        304 => "You have it already",
        400 => "Something in the request is wrong; `detail` says what",
        401 => "There is no credential, or it is not in force",
        403 => "The credential is for something else, or lacks the permission",
        404 => "There is no such thing",
        406 => "You take no media type that there is",
        408 => "The body did not arrive in time",
        409 => "Something of this name exists, or the same request is being carried out",
        412 => "It was changed in the meantime",
        413 => "The body is too long",
        415 => "The body is of another media type",
        422 => "The idempotency key was that of another request",
        428 => "If-Match is required",
        501 => "There are no lists of the past",
        429 => "Too many attempts; Retry-After says when to come back",
        _ => "Not now; Retry-After says when to come back",
    };
    let answer = ResponseBuilder::new().description(says);
    if status == 304 {
        return answer;
    }
    let (media, name) = match refusals {
        Refusals::Problem => (PROBLEM, ProblemSchema::name()),
        Refusals::OAuth => (JSON, OAuthErrorSchema::name()),
    };
    let schema: RefOr<Schema> = Ref::from_schema_name(name).into();
    let answer = answer.content(media, ContentBuilder::new().schema(Some(schema)).build());
    match status {
        401 => answer.header("WWW-Authenticate", text_header("How to authenticate")),
        429 | 503 => answer.header("Retry-After", text_header("In seconds")),
        _ => answer,
    }
}
