//! Describes every route of the table for programs (OpenAPI 3.1): who may use it, what it takes, what it answers.
//!
//! Who may use a route, and whether an idempotency key counts, is taken from the route table itself; what is common to all
//! routes of a kind follows from that. The rest is one line for each route, and a route without one fails a test.

mod admin;
mod oauth;
mod public;
mod schemas;
#[cfg(test)]
mod tests;

use axum::http::Method;
use tollgate_shared::id::{ID_BYTES_MAX, IssuerId};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::info::InfoBuilder;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Ref, Schema, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::{OpenApi, OpenApiBuilder, PathItem, RefOr, Required, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use crate::access::Access;
use crate::app::{once_routes, routes};
use crate::once::KEY_BYTES_MAX;
use crate::published::Published;
use schemas::{OAuthErrorSchema, ProblemSchema};

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const FORM: &str = "application/x-www-form-urlencoded";
/// Names and ids have no control characters.
const NAME_PATTERN: &str = r"^[^\x00-\x1f\x7f-\x9f]+$";

/// A named schema and what adds it to the document, with all it refers to.
struct Shape {
    name: String,
    add: fn(ComponentsBuilder) -> ComponentsBuilder,
}

impl Shape {
    fn of<T: ToSchema>() -> Self {
        Self { name: T::name().into_owned(), add: ComponentsBuilder::schema_from::<T> }
    }

    fn reference(&self) -> RefOr<Schema> {
        Ref::from_schema_name(&self.name).into()
    }
}

/// What an answer carries.
enum Carried {
    Nothing,
    /// JSON of this shape.
    Json(Shape),
    /// One of these media types.
    Media(&'static [&'static str]),
    /// JSON of this shape, or this media type.
    Either(Shape, &'static str),
}

/// In what an endpoint says that it refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusals {
    /// RFC 9457.
    Problem,
    /// RFC 6749 section 5.2.
    OAuth,
}

/// What there is to say of a route beside what the table says.
struct Description {
    method: Method,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    query: Vec<Parameter>,
    body: Option<(&'static str, Shape)>,
    answer: (u16, Carried),
    more: Vec<u16>,
    headers: Vec<(&'static str, &'static str)>,
    if_match: bool,
    refusals: Refusals,
}

fn describe(method: Method, path: &'static str, id: &'static str, summary: &'static str) -> Description {
    Description {
        method,
        path,
        id,
        summary,
        query: Vec::new(),
        body: None,
        answer: (204, Carried::Nothing),
        more: Vec::new(),
        headers: Vec::new(),
        if_match: false,
        refusals: Refusals::Problem,
    }
}

impl Description {
    /// It takes JSON of this shape.
    fn takes<T: ToSchema>(mut self) -> Self {
        self.body = Some((JSON, Shape::of::<T>()));
        self
    }

    /// It takes a form of this shape, and says in OAuth's way what it refuses.
    fn takes_form<T: ToSchema>(mut self) -> Self {
        self.body = Some((FORM, Shape::of::<T>()));
        self.refusals = Refusals::OAuth;
        self
    }

    /// It answers with JSON of this shape.
    fn gives<T: ToSchema>(mut self, status: u16) -> Self {
        self.answer = (status, Carried::Json(Shape::of::<T>()));
        self
    }

    fn gives_media(mut self, media: &'static [&'static str]) -> Self {
        self.answer = (200, Carried::Media(media));
        self
    }

    fn gives_nothing(mut self, status: u16) -> Self {
        self.answer = (status, Carried::Nothing);
        self
    }

    /// The answer has an entity tag.
    fn tagged(mut self) -> Self {
        self.headers.push(("ETag", "The version, quoted"));
        self
    }

    /// The answer says where the new thing is.
    fn located(mut self) -> Self {
        self.headers.push(("Location", "The path of what was made"));
        self.tagged()
    }

    /// It is a page of a list.
    fn paged(mut self) -> Self {
        self.query.push(name_parameter("after", "The `next` of the page before"));
        let limit = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(200));
        self.query.push(query("limit", "The most entries; 50 when missing", limit));
        self.headers.push(("Link", "Where the next page is (RFC 8288), if there is one"));
        self.and(&[400])
    }

    fn asks(mut self, parameter: Parameter) -> Self {
        self.query.push(parameter);
        self.and(&[400])
    }

    /// It heeds `If-Match`.
    fn conditional(mut self) -> Self {
        self.if_match = true;
        self.and(&[400, 412, 428])
    }

    /// It may also answer so.
    fn and(mut self, statuses: &[u16]) -> Self {
        self.more.extend(statuses);
        self
    }

    /// All statuses that it may answer with, but that of its success.
    fn refused(&self, access: Access, once: bool) -> Vec<u16> {
        let mut statuses = self.more.clone();
        match access {
            Access::Public => {}
            Access::Operator(_) | Access::Edge => statuses.extend([401, 403, 503]),
            Access::OAuthClient => statuses.extend([400, 401, 503]),
            Access::User => statuses.extend([401, 403, 503]),
        }
        if self.body.is_some() {
            statuses.extend([400, 408, 413]);
            if self.refusals == Refusals::Problem {
                statuses.push(415);
            }
        }
        if once {
            statuses.extend([400, 408, 409, 413, 422]);
        }
        if self.path.contains('{') {
            statuses.push(404);
        }
        statuses.sort_unstable();
        statuses.dedup();
        statuses
    }
}

fn query(name: &str, description: &str, schema: ObjectBuilder) -> Parameter {
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

fn name_parameter(name: &str, description: &str) -> Parameter {
    query(name, description, name_schema())
}

fn number_parameter(name: &str, description: &str) -> Parameter {
    query(name, description, ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)))
}

/// All descriptions, also of routes that the table does not have.
fn descriptions() -> Vec<Description> {
    let mut all = public::descriptions();
    all.extend(oauth::descriptions());
    all.extend(admin::descriptions());
    all
}

/// The document, as it is sent.
pub(crate) fn published(issuer: &IssuerId) -> Published {
    // It consists of strings, numbers, lists and maps, which can always be written.
    Published::new(JSON, serde_json::to_string(&document(issuer)).unwrap_or_default())
}

/// The document: what the table and the descriptions say together.
fn document(issuer: &IssuerId) -> OpenApi {
    let once = once_routes();
    let all = descriptions();
    let mut components = components();
    let mut paths = PathsBuilder::new();
    for (method, path, access) in routes() {
        let found = all.iter().find(|one| one.method == method && one.path == path);
        let (Some(description), Some(verb)) = (found, verb(&method)) else { continue };
        let is_once = once.contains(&(method, path));
        components = shapes(description).into_iter().fold(components, |built, shape| (shape.add)(built));
        let item = PathItem::new(verb, operation(description, access, is_once));
        // OpenAPI has no catch-all; its template is that of one segment.
        paths = paths.path(path.replace("{*", "{"), item);
    }
    OpenApiBuilder::new()
        .info(InfoBuilder::new().title("Tollgate issuer").version(env!("CARGO_PKG_VERSION")).description(
            Some("Gives tokens, takes them back, and tells edges what they need to decide alone."),
        ))
        .servers(Some([ServerBuilder::new().url(issuer.as_str()).build()]))
        .paths(paths)
        .components(Some(components.build()))
        .build()
}

fn verb(method: &Method) -> Option<HttpMethod> {
    Some(match method.as_str() {
        "GET" => HttpMethod::Get,
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        _ => return None,
    })
}

fn components() -> ComponentsBuilder {
    let http = |scheme: HttpAuthScheme, says: &str| {
        let mut http = Http::new(scheme);
        http.description = Some(says.to_owned());
        SecurityScheme::Http(http)
    };
    ComponentsBuilder::new()
        .schema_from::<ProblemSchema>()
        .schema_from::<OAuthErrorSchema>()
        .security_scheme("operator", http(HttpAuthScheme::Bearer, "The credential of an operator"))
        .security_scheme("edge", http(HttpAuthScheme::Bearer, "The credential of an edge"))
        .security_scheme("user", http(HttpAuthScheme::Bearer, "The access token of a person"))
        .security_scheme("client", http(HttpAuthScheme::Basic, "The id and secret of an OAuth client"))
}

fn shapes(description: &Description) -> Vec<&Shape> {
    let mut shapes = Vec::new();
    shapes.extend(description.body.as_ref().map(|(_, shape)| shape));
    match &description.answer.1 {
        Carried::Json(shape) | Carried::Either(shape, _) => shapes.push(shape),
        Carried::Nothing | Carried::Media(_) => {}
    }
    shapes
}

fn operation(description: &Description, access: Access, once: bool) -> Operation {
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

fn text_header(says: &str) -> utoipa::openapi::header::Header {
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
        408 => "The body did not arrive in time",
        409 => "Something of this name exists, or the same request is being carried out",
        412 => "It was changed in the meantime",
        413 => "The body is too long",
        415 => "The body is of another media type",
        422 => "The idempotency key was that of another request",
        428 => "If-Match is required",
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
