//! Calls that Java makes when a class is loaded: static fields and blocks; and when a function's object is made, which its framework does
//! before the first request.

use std::collections::{BTreeSet, HashMap};

use tree_sitter::{Node, Tree};

use super::{Beside, Call, DEPTH_MAX, Kind, Page, arguments, children, rules::Rule};

const RANDOM: Option<Kind> = Some(Kind::Random);
const CLOCK: Option<Kind> = Some(Kind::Clock);
const CLIENT: Option<Kind> = Some(Kind::Client);

/// Generators themselves are not told: the launcher renews those without a seed in each clone.
const RULES: &[Rule] = &[
    ("java.util.UUID.randomUUID", RANDOM),
    ("java.lang.Math.random", RANDOM),
    ("new java.util.Random().next*", RANDOM),
    ("new java.util.Random().*s", RANDOM),
    ("new java.util.SplittableRandom().next*", RANDOM),
    ("new java.security.SecureRandom().next*", RANDOM),
    ("new java.security.SecureRandom().generateSeed", RANDOM),
    ("java.security.SecureRandom.getInstance*().next*", RANDOM),
    ("java.util.concurrent.ThreadLocalRandom.current().*", RANDOM),
    ("org.apache.commons.lang3.RandomStringUtils.random*", RANDOM),
    ("new org.bson.types.ObjectId()", RANDOM),
    ("org.bson.types.ObjectId.get", RANDOM),
    ("java.lang.System.currentTimeMillis", CLOCK),
    ("java.lang.System.nanoTime", CLOCK),
    ("java.time.Instant.now", CLOCK),
    ("java.time.Local*.now", CLOCK),
    ("java.time.ZonedDateTime.now", CLOCK),
    ("java.time.Offset*.now", CLOCK),
    ("java.time.Year*.now", CLOCK),
    ("new java.util.Date()", CLOCK),
    ("new java.util.GregorianCalendar()", CLOCK),
    ("java.util.Calendar.getInstance", CLOCK),
    ("com.google.cloud.*Options.getDefaultInstance().getService", CLIENT),
    ("com.google.cloud.*Options.newBuilder().build().getService", CLIENT),
    ("com.google.cloud.*Client.create", CLIENT),
    ("com.google.cloud.pubsub.v1.Publisher.newBuilder(…).build", CLIENT),
    ("com.google.firebase.FirebaseApp.initializeApp", CLIENT),
    ("java.sql.DriverManager.getConnection", CLIENT),
    ("new com.zaxxer.hikari.HikariDataSource", CLIENT),
    ("new redis.clients.jedis.Jedis*", CLIENT),
    ("new redis.clients.jedis.UnifiedJedis", CLIENT),
    ("io.lettuce.core.Redis*Client.create", CLIENT),
    ("com.mongodb.client.MongoClients.create", CLIENT),
    ("java.net.http.HttpClient.newHttpClient", CLIENT),
    ("java.net.http.HttpClient.newBuilder().build", CLIENT),
    ("new okhttp3.OkHttpClient", CLIENT),
    ("org.apache.http.impl.client.HttpClients.create*", CLIENT),
    ("org.apache.hc.client5.http.impl.classic.HttpClients.create*", CLIENT),
    ("io.grpc.ManagedChannelBuilder.for*(…).build", CLIENT),
    ("new org.apache.kafka.clients.*Kafka*", CLIENT),
    ("new java.net.Socket", CLIENT),
    ("new org.springframework.web.client.RestTemplate", CLIENT),
];

/// Methods that set something of a builder and give it back: left out of paths.
const BUILDER: [&str; 3] = ["set", "with", "use"];

/// Whoever implements one of these is made once, before the first request.
const FUNCTIONS: [&str; 5] = ["HttpFunction", "BackgroundFunction", "RawBackgroundFunction", "CloudEventsFunction", "TypedFunction"];

pub(super) fn calls(tree: &Tree, text: &str, beside: &Beside) -> Vec<Call> {
    let mut file = JavaFile {
        page: Page::new(text),
        beside,
        imported: HashMap::new(),
        own: BTreeSet::new(),
        wholes: vec!["java.lang".to_owned()],
        statics: Vec::new(),
        fields: HashMap::new(),
    };
    let root = tree.root_node();
    children(root).into_iter().filter(|node| node.kind() == "import_declaration").for_each(|node| file.import(node));
    file.own_types(root, 0);
    file.types(root, 0);
    file.page.done()
}

struct JavaFile<'a> {
    page: Page<'a>,
    beside: &'a Beside,
    /// Types and static members by their simple names.
    imported: HashMap<&'a str, String>,
    /// Types that the file declares.
    own: BTreeSet<&'a str>,
    /// Packages of which all types were imported.
    wholes: Vec<String>,
    /// Types of which all static members were.
    statics: Vec<String>,
    /// Fields whose value is known.
    fields: HashMap<&'a str, Vec<String>>,
}

impl<'a> JavaFile<'a> {
    fn import(&mut self, node: Node<'_>) {
        let is_static = node.children(&mut node.walk()).any(|part| part.kind() == "static");
        let parts = children(node);
        let Some(name) = parts.iter().find(|part| part.kind().ends_with("identifier")) else { return };
        let path: String = self.page.text(*name).split_whitespace().collect();
        if parts.iter().any(|part| part.kind() == "asterisk") {
            if is_static { self.statics.push(path) } else { self.wholes.push(path) }
        } else {
            let last = if name.kind() == "scoped_identifier" { name.child_by_field_name("name") } else { Some(*name) };
            if let Some(last) = last {
                self.imported.insert(self.page.text(last), path);
            }
        }
    }

    fn own_types(&mut self, node: Node<'_>, depth: usize) {
        for child in
            children(node).into_iter().filter(|child| depth <= DEPTH_MAX && (child.kind().ends_with("_declaration") || child.kind().ends_with("_body")))
        {
            if let Some(name) = child.child_by_field_name("name").filter(|_| is_type(child)) {
                self.own.insert(self.page.text(name));
            }
            self.own_types(child, depth + 1);
        }
    }

    /// Goes through types and the types in them.
    fn types(&mut self, node: Node<'_>, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        for child in children(node).into_iter().filter(|child| is_type(*child)) {
            let is_function = child.child_by_field_name("interfaces").is_some_and(|interfaces| self.names_function(interfaces));
            if let Some(body) = child.child_by_field_name("body") {
                self.body(body, is_function, depth);
            }
        }
    }

    fn names_function(&self, interfaces: Node<'_>) -> bool {
        let mut open = vec![interfaces];
        while let Some(node) = open.pop() {
            if node.kind() == "type_identifier" && FUNCTIONS.contains(&self.page.text(node)) {
                return true;
            }
            open.extend(children(node));
        }
        false
    }

    /// `is_made`: objects of the type are made while it loads, not only the type.
    fn body(&mut self, body: Node<'_>, is_made: bool, depth: usize) {
        for member in children(body) {
            match member.kind() {
                "static_initializer" | "enum_constant" | "constant_declaration" => self.visit(member, depth),
                "field_declaration" if is_made || self.is_static(member) => self.visit(member, depth),
                "block" | "constructor_declaration" if is_made => self.visit(member, depth),
                "enum_body_declarations" => self.body(member, is_made, depth + 1),
                _ => {}
            }
        }
        self.types(body, depth + 1);
    }

    fn is_static(&self, member: Node<'_>) -> bool {
        let modifiers = children(member).into_iter().find(|part| part.kind() == "modifiers");
        modifiers.is_some_and(|modifiers| modifiers.children(&mut modifiers.walk()).any(|part| part.kind() == "static"))
    }

    fn visit(&mut self, node: Node<'_>, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        match node.kind() {
            "lambda_expression" | "class_body" | "class_declaration" => return,
            _ => children(node).into_iter().for_each(|child| self.visit(child, depth + 1)),
        }
        match node.kind() {
            "variable_declarator" => {
                let paths = node.child_by_field_name("value").map_or_else(Vec::new, |value| self.paths(value, 0));
                if let Some(name) = node.child_by_field_name("name") {
                    self.fields.insert(self.page.text(name), paths);
                }
            }
            "method_invocation" => {
                let paths = self.paths(node, 0);
                let end = node.child_by_field_name("name").map_or(node.end_byte(), |name| name.end_byte());
                self.page.note(RULES, node, node.start_byte()..end, &paths);
            }
            "object_creation_expression" => {
                if let Some(made) = node.child_by_field_name("type") {
                    let paths = self.paths(node, 0);
                    self.page.note(RULES, node, node.start_byte()..made.end_byte(), &paths);
                }
            }
            _ => {}
        }
    }

    /// What an expression may stand for.
    fn paths(&self, node: Node<'_>, depth: usize) -> Vec<String> {
        if depth > DEPTH_MAX {
            return Vec::new();
        }
        let name_of = |field: &str| node.child_by_field_name(field).map_or("", |name| self.page.text(name));
        let of = |field: &str| node.child_by_field_name(field).map_or_else(Vec::new, |part| self.paths(part, depth + 1));
        match node.kind() {
            "identifier" => match self.fields.get(self.page.text(node)) {
                Some(paths) => paths.clone(),
                // A package, when it is no variable.
                None if self.page.text(node).starts_with(char::is_lowercase) => vec![self.page.text(node).to_owned()],
                None => self.named(self.page.text(node)),
            },
            "type_identifier" => self.named(self.page.text(node)),
            "generic_type" => node.named_child(0).map_or_else(Vec::new, |name| self.paths(name, depth + 1)),
            "scoped_type_identifier" | "scoped_identifier" => vec![self.page.text(node).split_whitespace().collect()],
            "field_access" => {
                let name = name_of("field");
                with(&of("object"), &format!(".{name}"))
            }
            "method_invocation" => {
                let (name, arguments) = (name_of("name"), arguments(node.child_by_field_name("arguments")));
                if node.child_by_field_name("object").is_none() {
                    let imported = self.imported.get(name).cloned();
                    let paths: Vec<String> = imported.into_iter().chain(self.statics.iter().map(|path| format!("{path}.{name}"))).collect();
                    return with(&paths, arguments);
                }
                let object = of("object");
                if BUILDER.iter().any(|start| name.starts_with(start)) { object } else { with(&object, &format!(".{name}{arguments}")) }
            }
            "object_creation_expression" => {
                let arguments = arguments(node.child_by_field_name("arguments"));
                of("type").iter().map(|path| format!("new {path}{arguments}")).collect()
            }
            "parenthesized_expression" => node.named_child(0).map_or_else(Vec::new, |inner| self.paths(inner, depth + 1)),
            "cast_expression" => of("value"),
            _ => Vec::new(),
        }
    }

    /// What a simple name of a type may stand for.
    fn named(&self, name: &str) -> Vec<String> {
        match self.imported.get(name) {
            _ if self.own.contains(name) => Vec::new(),
            Some(path) => vec![path.clone()],
            None if self.beside.beside.contains(name) => Vec::new(),
            None => self.wholes.iter().map(|package| format!("{package}.{name}")).collect(),
        }
    }
}

fn is_type(node: Node<'_>) -> bool {
    ["class_declaration", "interface_declaration", "enum_declaration", "record_declaration"].contains(&node.kind())
}

fn with(paths: &[String], end: &str) -> Vec<String> {
    paths.iter().map(|path| format!("{path}{end}")).collect()
}
