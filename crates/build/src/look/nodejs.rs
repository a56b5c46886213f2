//! Calls in the global scope of a module of Node.js, JavaScript or TypeScript: what `import` or `require` runs.

use std::collections::HashMap;

use tree_sitter::{Node, Tree};

use super::{Call, DEPTH_MAX, Kind, Page, arguments, children, rules::Rule};

const RANDOM: Option<Kind> = Some(Kind::Random);
const CLOCK: Option<Kind> = Some(Kind::Clock);
const CLIENT: Option<Kind> = Some(Kind::Client);

const RULES: &[Rule] = &[
    ("Math.random", RANDOM),
    ("crypto.randomUUID", RANDOM),
    ("crypto.randomBytes", RANDOM),
    ("crypto.pseudoRandomBytes", RANDOM),
    ("crypto.randomInt", RANDOM),
    ("crypto.randomFillSync", RANDOM),
    ("crypto.getRandomValues", RANDOM),
    ("crypto.webcrypto.getRandomValues", RANDOM),
    ("crypto.webcrypto.randomUUID", RANDOM),
    ("crypto.generateKeySync", RANDOM),
    ("crypto.generateKeyPairSync", RANDOM),
    ("uuid", RANDOM),
    ("uuid.v1", RANDOM),
    ("uuid.v4", RANDOM),
    ("uuid.v6", RANDOM),
    ("uuid.v7", RANDOM),
    ("uuid/v1", RANDOM),
    ("uuid/v4", RANDOM),
    ("nanoid", RANDOM),
    ("nanoid.nanoid", RANDOM),
    ("nanoid/non-secure.nanoid", RANDOM),
    ("ulid.ulid", RANDOM),
    ("cuid", RANDOM),
    ("@paralleldrive/cuid2.createId", RANDOM),
    ("shortid.generate", RANDOM),
    ("new mongodb.ObjectId()", RANDOM),
    ("new bson.ObjectId()", RANDOM),
    ("new mongoose.Types.ObjectId()", RANDOM),
    ("Date.now", CLOCK),
    ("Date()", CLOCK),
    ("new Date()", CLOCK),
    ("performance.now", CLOCK),
    ("perf_hooks.performance.now", CLOCK),
    ("process.hrtime", CLOCK),
    ("process.hrtime.bigint", CLOCK),
    ("moment()", CLOCK),
    ("moment.utc()", CLOCK),
    ("dayjs()", CLOCK),
    ("luxon.DateTime.now", CLOCK),
    ("luxon.DateTime.utc()", CLOCK),
    ("new @google-cloud/functions-framework*", None),
    ("new @google-cloud/*", CLIENT),
    ("new @google/genai.GoogleGenAI", CLIENT),
    ("firebase-admin.initializeApp", CLIENT),
    ("firebase-admin/app.initializeApp", CLIENT),
    ("firebase-admin.firestore", CLIENT),
    ("firebase-admin/firestore.getFirestore", CLIENT),
    ("redis.createClient", CLIENT),
    ("redis.createCluster", CLIENT),
    ("new ioredis", CLIENT),
    ("new ioredis.Redis", CLIENT),
    ("new ioredis.Cluster", CLIENT),
    ("new pg.Pool", CLIENT),
    ("new pg.Client", CLIENT),
    ("postgres", CLIENT),
    ("mysql.createConnection", CLIENT),
    ("mysql.createPool", CLIENT),
    ("mysql2.createConnection", CLIENT),
    ("mysql2.createPool", CLIENT),
    ("mysql2/promise.createConnection", CLIENT),
    ("mysql2/promise.createPool", CLIENT),
    ("new mongodb.MongoClient", CLIENT),
    ("mongodb.MongoClient.connect", CLIENT),
    ("mongoose.connect", CLIENT),
    ("mongoose.createConnection", CLIENT),
    ("knex", CLIENT),
    ("knex.knex", CLIENT),
    ("new sequelize", CLIENT),
    ("new sequelize.Sequelize", CLIENT),
    ("new typeorm.DataSource", CLIENT),
    ("new @prisma/client.PrismaClient", CLIENT),
    ("new kafkajs.Kafka", CLIENT),
    ("amqplib.connect", CLIENT),
    ("new @aws-sdk/*Client", CLIENT),
    ("nodemailer.createTransport", CLIENT),
    ("new openai", CLIENT),
    ("new openai.OpenAI", CLIENT),
    ("new @elastic/elasticsearch.Client", CLIENT),
    ("new @grpc/grpc-js.Client", CLIENT),
    ("net.connect", CLIENT),
    ("net.createConnection", CLIENT),
    ("new net.Socket", CLIENT),
    ("tls.connect", CLIENT),
    ("http2.connect", CLIENT),
    ("new http.Agent", CLIENT),
    ("new https.Agent", CLIENT),
    ("new undici.*", CLIENT),
    ("new ws", CLIENT),
    ("new ws.WebSocket", CLIENT),
    ("new WebSocket", CLIENT),
];

/// What is there without an import.
const GLOBALS: [&str; 6] = ["Math", "Date", "performance", "process", "crypto", "WebSocket"];

pub(super) fn calls(tree: &Tree, text: &str) -> Vec<Call> {
    let names = GLOBALS.map(|name| (name, Some(name.to_owned()))).into();
    let mut module = Module { page: Page::new(text), names };
    let root = tree.root_node();
    module.hoist(root);
    module.visit(root, 0);
    module.page.done()
}

struct Module<'a> {
    page: Page<'a>,
    /// What a name stands for at this point; `None`: something that is not known.
    names: HashMap<&'a str, Option<String>>,
}

impl<'a> Module<'a> {
    /// Imports, functions and classes have their names before the first statement runs.
    fn hoist(&mut self, scope: Node<'_>) {
        for statement in children(scope) {
            let statement = if statement.kind() == "export_statement" { statement.child_by_field_name("declaration").unwrap_or(statement) } else { statement };
            match statement.kind() {
                "import_statement" => self.import(statement),
                "function_declaration" | "generator_function_declaration" | "class_declaration" | "abstract_class_declaration" | "enum_declaration" => {
                    self.bind(statement.child_by_field_name("name"), None);
                }
                _ => {}
            }
        }
    }

    fn visit(&mut self, node: Node<'_>, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        match node.kind() {
            "import_statement" | "function_declaration" | "generator_function_declaration" | "method_definition" => {}
            "function_expression" | "generator_function" | "arrow_function" => {}
            "class_body" => self.class(node, depth),
            "variable_declarator" => {
                let value = node.child_by_field_name("value");
                if let Some(value) = value {
                    self.visit(value, depth + 1);
                }
                let path = value.and_then(|value| self.path(value, 0));
                self.bind(node.child_by_field_name("name"), path.as_deref());
            }
            "assignment_expression" => {
                self.visit_children(node, depth);
                if let Some(left) = node.child_by_field_name("left").filter(|left| left.kind() == "identifier") {
                    let path = node.child_by_field_name("right").and_then(|right| self.path(right, 0));
                    self.bind(Some(left), path.as_deref());
                }
            }
            "call_expression" => {
                let callee = node.child_by_field_name("function");
                self.visit_children(node, depth);
                if let Some(callee) = callee {
                    self.at_once(callee, depth);
                    self.note(node, callee);
                }
            }
            "new_expression" => {
                self.visit_children(node, depth);
                if let Some(constructor) = node.child_by_field_name("constructor") {
                    self.note(node, constructor);
                }
            }
            _ => self.visit_children(node, depth),
        }
    }

    fn visit_children(&mut self, node: Node<'_>, depth: usize) {
        children(node).into_iter().for_each(|child| self.visit(child, depth + 1));
    }

    fn note(&mut self, node: Node<'_>, callee: Node<'_>) {
        // What `require` gives is a module, and no call's result.
        let paths: Vec<String> = self.path(node, 0).into_iter().filter(|path| path.ends_with(')')).collect();
        // `new Date`, as it is written.
        self.page.note(RULES, node, node.start_byte()..callee.end_byte(), &paths);
    }

    /// Static fields and blocks run with the class; the others with each object.
    fn class(&mut self, body: Node<'_>, depth: usize) {
        for member in children(body) {
            let is_static = match member.kind() {
                "class_static_block" => true,
                "field_definition" | "public_field_definition" => member.children(&mut member.walk()).any(|part| part.kind() == "static"),
                _ => false,
            };
            if is_static {
                self.visit_children(member, depth);
            }
        }
    }

    /// `(() => { … })()` runs where it stands.
    fn at_once(&mut self, mut callee: Node<'_>, depth: usize) {
        while callee.kind() == "parenthesized_expression" {
            let Some(inner) = callee.named_child(0) else { return };
            callee = inner;
        }
        if !["function_expression", "arrow_function"].contains(&callee.kind()) {
            return;
        }
        let Some(body) = callee.child_by_field_name("body") else { return };
        let outside = self.names.clone();
        self.bind(callee.child_by_field_name("parameters"), None);
        self.hoist(body);
        self.visit(body, depth + 1);
        self.names = outside;
    }

    fn import(&mut self, node: Node<'_>) {
        let source = node.child_by_field_name("source").map(|source| module_name(self.page.text(source)));
        for clause in children(node) {
            match clause.kind() {
                // TypeScript: import x = require("x")
                "import_require_clause" => {
                    let module = clause.child_by_field_name("source").map(|source| module_name(self.page.text(source)));
                    self.bind(clause.named_child(0), module.as_deref());
                }
                "import_clause" => children(clause).into_iter().for_each(|part| self.import_part(part, source.as_deref().unwrap_or_default())),
                _ => {}
            }
        }
    }

    fn import_part(&mut self, part: Node<'_>, module: &str) {
        match part.kind() {
            "identifier" => self.bind(Some(part), Some(module)),
            "namespace_import" => self.bind(part.named_child(0), Some(module)),
            "named_imports" => {
                for specifier in children(part) {
                    let name = specifier.child_by_field_name("name");
                    let path = name.map(|name| member(module, self.page.text(name)));
                    self.bind(specifier.child_by_field_name("alias").or(name), path.as_deref());
                }
            }
            _ => {}
        }
    }

    /// Gives the names of a pattern the parts of `path`, or nothing that is known.
    fn bind(&mut self, pattern: Option<Node<'_>>, path: Option<&str>) {
        let mut open: Vec<_> = pattern.into_iter().map(|pattern| (pattern, path.map(str::to_owned))).collect();
        while let Some((node, path)) = open.pop() {
            let part = |name: Option<Node<'_>>| path.as_ref().zip(name).map(|(path, name)| member(path, self.page.text(name)));
            match node.kind() {
                "identifier" | "type_identifier" => {
                    self.names.insert(self.page.text(node), path);
                }
                "shorthand_property_identifier_pattern" => {
                    let path = part(Some(node));
                    self.names.insert(self.page.text(node), path);
                }
                "pair_pattern" => {
                    let path = part(node.child_by_field_name("key"));
                    open.extend(node.child_by_field_name("value").map(|value| (value, path)));
                }
                "object_assignment_pattern" | "assignment_pattern" => open.extend(node.child_by_field_name("left").map(|left| (left, path))),
                "object_pattern" => open.extend(children(node).into_iter().map(|child| (child, path.clone()))),
                "type_annotation" | "member_expression" | "subscript_expression" => {}
                _ => open.extend(children(node).into_iter().map(|child| (child, None))),
            }
        }
    }

    /// What an expression stands for.
    fn path(&self, node: Node<'_>, depth: usize) -> Option<String> {
        if depth > DEPTH_MAX {
            return None;
        }
        let of = |field: &str| node.child_by_field_name(field).and_then(|part| self.path(part, depth + 1));
        match node.kind() {
            "identifier" => match (self.page.text(node), self.names.get(self.page.text(node))) {
                (_, Some(path)) => path.clone(),
                ("globalThis" | "global", None) => Some(String::new()),
                _ => None,
            },
            "member_expression" => {
                let name = self.page.text(node.child_by_field_name("property")?);
                Some(member(&of("object")?, name))
            }
            "call_expression" => {
                let callee = node.child_by_field_name("function")?;
                let arguments_node = node.child_by_field_name("arguments");
                let is_import = callee.kind() == "import" || (self.page.text(callee) == "require" && !self.names.contains_key("require"));
                match arguments_node.and_then(|arguments| arguments.named_child(0)) {
                    Some(name) if is_import => (name.kind() == "string").then(|| module_name(self.page.text(name))),
                    _ => Some(format!("{}{}", self.path(callee, depth + 1)?, arguments(arguments_node))),
                }
            }
            "new_expression" => Some(format!("new {}{}", of("constructor")?, arguments(node.child_by_field_name("arguments")))),
            "parenthesized_expression" | "await_expression" | "as_expression" | "satisfies_expression" | "non_null_expression" => {
                self.path(node.named_child(0)?, depth + 1)
            }
            _ => None,
        }
    }
}

/// `node:crypto` is `crypto`.
fn module_name(quoted: &str) -> String {
    let name = quoted.trim_matches(['"', '\'', '`']);
    name.strip_prefix("node:").unwrap_or(name).to_owned()
}

/// A module's default is the module itself here: which of the two a package means depends on how it is loaded.
fn member(path: &str, name: &str) -> String {
    match (path, name) {
        ("", name) => name.to_owned(),
        (path, "default") => path.to_owned(),
        (path, name) => format!("{path}.{name}"),
    }
}
