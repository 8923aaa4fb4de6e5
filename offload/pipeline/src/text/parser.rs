//! Tokens to pipelines, by recursive descent with a depth limit.

use dash_wire::drop::DropReason;
use dash_wire::stats::{EniStat, PortStat};
use nic_target::Table;

use super::lexer::{Kind, Token};
use super::{KEYWORDS, MAX_DEPTH, TextError};
use crate::fields::{Ty, meta_field};
use crate::ir::{BinOp, Cond, Expr, FlowSide, Pipeline, Stage, Stmt, Timeouts};

/// Left out of the names of ENI counters.
pub(super) const STAT_PREFIX: &str = "SAI_ENI_STAT_";
/// Left out of the names of the card's counters.
pub(super) const PORT_PREFIX: &str = "SAI_PORT_STAT_";

pub(super) fn pipeline(tokens: &[Token<'_>]) -> Result<(Pipeline, Vec<usize>), TextError> {
    let mut p = Parser {
        tokens,
        at: 0,
        depth: 0,
        lines: Vec::new(),
    };
    let timeouts = p.timeouts()?;
    let resets = p.said("resets");
    if resets {
        p.punct(";")?;
    }
    let mut stages = Vec::new();
    while p.peek() != Kind::End {
        p.keyword("stage")?;
        let name = p.word("the name of a stage")?.to_owned();
        stages.push(Stage {
            name,
            body: p.block()?,
        });
    }
    let pipeline = Pipeline {
        timeouts,
        resets,
        stages,
    };
    Ok((pipeline, p.lines))
}

/// What parentheses hold is known only at its operator.
enum Node {
    Expr(Expr),
    Cond(Cond),
}

struct Parser<'t, 'a> {
    /// Ends with [`Kind::End`], which is never passed.
    tokens: &'a [Token<'t>],
    at: usize,
    depth: usize,
    /// Of each statement.
    lines: Vec<usize>,
}

impl<'t> Parser<'t, '_> {
    fn token(&self) -> Token<'t> {
        const NOTHING: Token<'static> = Token {
            kind: Kind::End,
            line: 1,
            column: 1,
        };
        self.tokens
            .get(self.at)
            .or(self.tokens.last())
            .copied()
            .unwrap_or(NOTHING)
    }

    fn peek(&self) -> Kind<'t> {
        self.token().kind
    }

    fn advance(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    fn error<T>(&self, what: impl Into<String>) -> Result<T, TextError> {
        let Token { line, column, .. } = self.token();
        Err(TextError {
            line,
            column,
            what: what.into(),
        })
    }

    fn expected<T>(&self, what: &str) -> Result<T, TextError> {
        self.error(format!("expected {what}, found {}", self.peek().describe()))
    }

    fn take(&mut self, punct: &'static str) -> bool {
        let found = self.peek() == Kind::Punct(punct);
        if found {
            self.advance();
        }
        found
    }

    fn punct(&mut self, punct: &'static str) -> Result<(), TextError> {
        if self.take(punct) {
            Ok(())
        } else {
            self.expected(&format!("`{punct}`"))
        }
    }

    fn word(&mut self, what: &str) -> Result<&'t str, TextError> {
        let Kind::Word(word) = self.peek() else {
            return self.expected(what);
        };
        self.advance();
        Ok(word)
    }

    /// A word that is no keyword.
    fn name(&mut self, what: &str) -> Result<&'t str, TextError> {
        match self.peek() {
            Kind::Word(word) if KEYWORDS.contains(&word) => self.expected(what),
            _ => self.word(what),
        }
    }

    fn keyword(&mut self, keyword: &str) -> Result<(), TextError> {
        if self.peek() == Kind::Word(keyword) {
            self.advance();
            Ok(())
        } else {
            self.expected(&format!("`{keyword}`"))
        }
    }

    /// Takes an optional word.
    fn said(&mut self, word: &str) -> bool {
        let said = self.peek() == Kind::Word(word);
        if said {
            self.advance();
        }
        said
    }

    fn nested<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, TextError>,
    ) -> Result<T, TextError> {
        if self.depth >= MAX_DEPTH {
            return self.error(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn block(&mut self) -> Result<Vec<Stmt>, TextError> {
        self.nested(|p| {
            p.punct("{")?;
            let mut body = Vec::new();
            while !p.take("}") {
                body.push(p.stmt()?);
            }
            Ok(body)
        })
    }

    fn else_block(&mut self) -> Result<Vec<Stmt>, TextError> {
        if self.peek() == Kind::Word("else") {
            self.advance();
            self.block()
        } else {
            Ok(Vec::new())
        }
    }

    fn timeouts(&mut self) -> Result<Timeouts, TextError> {
        let mut timeouts = Timeouts::default();
        if !self.said("timeouts") {
            return Ok(timeouts);
        }
        while !self.take(";") {
            let Kind::Word(name) = self.peek() else {
                return self.expected("the name of a timeout");
            };
            let Some(value) = timeouts.value_mut(name) else {
                return self.error(format!("there is no timeout `{name}`"));
            };
            self.advance();
            match self.peek() {
                Kind::Number(ms) if ms > 0 && u32::try_from(ms).is_ok() => *value = ms as u32,
                _ => return self.expected("milliseconds, 1 to 4294967295"),
            }
            self.advance();
        }
        Ok(timeouts)
    }

    fn stmt(&mut self) -> Result<Stmt, TextError> {
        let Kind::Word(word) = self.peek() else {
            return self.expected("a statement or `}`");
        };
        self.lines.push(self.token().line);
        match word {
            "match" => return self.match_stmt(),
            "if" => {
                self.advance();
                return Ok(Stmt::If {
                    cond: self.cond()?,
                    then: self.block()?,
                    els: self.else_block()?,
                });
            }
            "flow" => {
                self.advance();
                if self.peek() == Kind::Word("lookup") {
                    self.advance();
                    return Ok(Stmt::FlowLookup {
                        peek: self.said("peek"),
                        pair: self.said("pair"),
                        marks: self.said("marks"),
                        meter: self.said("meter"),
                        epoch: self.said("epoch"),
                        learn: self.said("learn"),
                        hit: self.block()?,
                        miss: self.else_block()?,
                    });
                }
            }
            _ => {}
        }
        let stmt = self.simple(word)?;
        self.punct(";")?;
        Ok(stmt)
    }

    fn match_stmt(&mut self) -> Result<Stmt, TextError> {
        self.keyword("match")?;
        let Kind::Word(table) = self.peek() else {
            return self.expected("a table");
        };
        let Some(table) = Table::by_name(table) else {
            return self.error(format!("there is no table `{table}`"));
        };
        self.advance();
        self.punct("[")?;
        let mut key = Vec::new();
        while !self.take("]") {
            if !key.is_empty() {
                self.punct(",")?;
            }
            key.push(self.expr()?);
        }
        self.keyword("as")?;
        let row = self.name("a name for the row")?.to_owned();
        Ok(Stmt::Match {
            table,
            key,
            row,
            hit: self.block()?,
            miss: self.else_block()?,
        })
    }

    /// A statement that ends with `;`, which is left. For `flow` the word is passed already.
    fn simple(&mut self, word: &str) -> Result<Stmt, TextError> {
        if word == "flow" {
            if self.said("redirect") {
                return Ok(Stmt::FlowRedirect);
            }
            if self.peek() != Kind::Word("create") {
                return self.expected("`lookup`, `create` or `redirect`");
            }
            self.advance();
            return Ok(Stmt::FlowCreate {
                pair: self.said("pair"),
                marks: self.said("marks"),
                epoch: self.said("epoch"),
                learn: self.said("learn"),
            });
        }
        if !KEYWORDS.contains(&word) {
            let field = self.field()?;
            self.punct("=")?;
            return Ok(Stmt::Set {
                field,
                value: self.expr()?,
            });
        }
        let start = self.at;
        self.advance();
        Ok(match word {
            "parse" => match self.peek() {
                Kind::Word("underlay") => {
                    self.advance();
                    Stmt::ParseUnderlay
                }
                Kind::Word("inner") => {
                    self.advance();
                    Stmt::ParseInner
                }
                Kind::Word("vxlan") => {
                    self.advance();
                    Stmt::ParseVxlan(self.expr()?)
                }
                Kind::Word("encap") => {
                    self.advance();
                    Stmt::ParseEncap(self.expr()?)
                }
                Kind::Word("redirect") => {
                    self.advance();
                    Stmt::ParseRedirect
                }
                _ => {
                    return self.expected("`underlay`, `vxlan`, `encap`, `inner` or `redirect`");
                }
            },
            "spot" => {
                self.keyword("redirect")?;
                Stmt::SpotRedirect
            }
            "consume" => Stmt::Consume,
            "origin" => Stmt::Origin,
            "guard" => {
                self.keyword("sport")?;
                let base = self.expr()?;
                self.punct(",")?;
                Stmt::GuardSport {
                    base,
                    mask: self.expr()?,
                }
            }
            "decap" => Stmt::Decap,
            "hook" => Stmt::Hook,
            "account" => Stmt::Account,
            "translate" => Stmt::Translate,
            "translatable" => Stmt::Translatable,
            "apply" => Stmt::Apply {
                nvgre: self.said("nvgre"),
                u1: self.said("u1"),
                smac: self.said("smac"),
            },
            "pass" => Stmt::Pass,
            "send" => Stmt::Send,
            "goto" => Stmt::Goto(self.word("the name of a stage")?.to_owned()),
            "forward" => Stmt::Forward(self.name("the name of a row")?.to_owned()),
            "drop" => Stmt::Drop(self.reason()?),
            "var" => {
                let name = self.name("a name for the local")?.to_owned();
                self.punct(":")?;
                let Kind::Word(ty) = self.peek() else {
                    return self.expected("a type");
                };
                let Some(ty) = Ty::parse(ty) else {
                    return self.error(format!("there is no type `{ty}`"));
                };
                self.advance();
                Stmt::Var { name, ty }
            }
            "entropy" => {
                let field = self.field()?;
                self.keyword("from")?;
                let key = match self.peek() {
                    Kind::Word("key") => FlowSide::Key,
                    Kind::Word("rkey") => FlowSide::Rkey,
                    _ => return self.expected("`key` or `rkey`"),
                };
                self.advance();
                Stmt::Entropy { field, key }
            }
            "choose" => {
                let field = self.field()?;
                self.keyword("from")?;
                self.keyword("key")?;
                self.keyword("of")?;
                Stmt::Choose {
                    field,
                    of: self.expr()?,
                }
            }
            "count" if self.said("port") => {
                let Kind::Word(name) = self.peek() else {
                    return self.expected("a counter of the card");
                };
                let stat = PortStat::ALL
                    .iter()
                    .copied()
                    .find(|s| s.name().strip_prefix(PORT_PREFIX) == Some(name));
                let Some(stat) = stat else {
                    return self.error(format!("there is no counter of the card `{name}`"));
                };
                self.advance();
                Stmt::CountPort {
                    stat,
                    amount: self.expr()?,
                }
            }
            "police" => Stmt::Police {
                len: self.expr()?,
                packets: self.said("packets"),
            },
            "admit" => Stmt::Admit,
            "meter" => Stmt::Meter { len: self.expr()? },
            "count" => {
                let Kind::Word(name) = self.peek() else {
                    return self.expected("an ENI counter");
                };
                let stat = EniStat::ALL
                    .iter()
                    .copied()
                    .find(|s| s.name().strip_prefix(STAT_PREFIX) == Some(name));
                let Some(stat) = stat else {
                    return self.error(format!("there is no ENI counter `{name}`"));
                };
                self.advance();
                Stmt::Count {
                    stat,
                    amount: self.expr()?,
                }
            }
            _ => {
                self.at = start;
                return self.expected("a statement or `}`");
            }
        })
    }

    /// Drop reasons are written with hyphens, which are operators elsewhere.
    fn reason(&mut self) -> Result<DropReason, TextError> {
        let start = self.at;
        let mut name = self.word("a drop reason")?.to_owned();
        while self.take("-") {
            name.push('-');
            name.push_str(self.word("the rest of a drop reason")?);
        }
        match DropReason::by_name(&name) {
            Some(reason) => Ok(reason),
            None => {
                self.at = start;
                self.error(format!("there is no drop reason `{name}`"))
            }
        }
    }

    /// The destination of an assignment: a local or a metadata field.
    fn field(&mut self) -> Result<String, TextError> {
        let start = self.at;
        let mut name = self.name("a field")?.to_owned();
        if self.take(".") {
            name.push('.');
            name.push_str(self.word("the rest of a field's name")?);
            if meta_field(&name).is_none() {
                self.at = start;
                return self.error(format!("there is no metadata field `{name}`"));
            }
        }
        Ok(name)
    }

    fn expr(&mut self) -> Result<Expr, TextError> {
        let start = self.at;
        match self.primary()? {
            Node::Expr(e) => Ok(e),
            Node::Cond(_) => {
                self.at = start;
                self.error("expected a value, found a condition")
            }
        }
    }

    fn cond(&mut self) -> Result<Cond, TextError> {
        let start = self.at;
        match self.node()? {
            Node::Cond(c) => Ok(c),
            Node::Expr(_) => {
                self.at = start;
                self.error("expected a condition, found a value")
            }
        }
    }

    /// A primary, compared with another when `==` or `!=` follows.
    fn node(&mut self) -> Result<Node, TextError> {
        let a = match self.primary()? {
            Node::Expr(a) => a,
            cond @ Node::Cond(_) => return Ok(cond),
        };
        Ok(if self.take("==") {
            Node::Cond(Cond::Eq(a, self.expr()?))
        } else if self.take("!=") {
            Node::Cond(Cond::Ne(a, self.expr()?))
        } else {
            Node::Expr(a)
        })
    }

    fn primary(&mut self) -> Result<Node, TextError> {
        match self.peek() {
            Kind::Number(n) => {
                self.advance();
                Ok(Node::Expr(Expr::Num(n)))
            }
            Kind::Punct("(") => self.nested(Self::parenthesised),
            Kind::Word("be16") => Ok(Node::Expr(Expr::ToBe(16, self.argument()?))),
            Kind::Word("be24") => Ok(Node::Expr(Expr::ToBe(24, self.argument()?))),
            Kind::Word("pad16") => Ok(Node::Expr(Expr::Pad16(self.argument()?))),
            Kind::Word("v4") => Ok(Node::Expr(Expr::V4(self.argument()?))),
            Kind::Word("num") => Ok(Node::Expr(Expr::FromBe(self.argument()?))),
            Kind::Word("mask") => Ok(Node::Expr(Expr::Mask(self.arguments()?))),
            Kind::Word("with4") => Ok(Node::Expr(Expr::With4(self.arguments()?))),
            Kind::Word("ingress") => {
                self.advance();
                Ok(Node::Expr(Expr::Ingress))
            }
            Kind::Word(_) => {
                let name = self.name("a value")?;
                if !self.take(".") {
                    return Ok(Node::Expr(Expr::Field(name.to_owned())));
                }
                let field = self.word("a field of the row")?;
                let whole = format!("{name}.{field}");
                Ok(Node::Expr(if meta_field(&whole).is_some() {
                    Expr::Field(whole)
                } else {
                    Expr::Row(name.to_owned(), field.to_owned())
                }))
            }
            _ => self.expected("a value"),
        }
    }

    /// `NAME(EXPR)`, with the name not passed yet.
    fn argument(&mut self) -> Result<Box<Expr>, TextError> {
        self.advance();
        self.nested(|p| {
            p.punct("(")?;
            let e = p.expr()?;
            p.punct(")")?;
            Ok(Box::new(e))
        })
    }

    /// `NAME(EXPR, ...)`, with the name not passed yet.
    fn arguments<const N: usize>(&mut self) -> Result<Box<[Expr; N]>, TextError> {
        self.advance();
        self.nested(|p| {
            let mut of = [const { Expr::Num(0) }; N];
            for (i, e) in of.iter_mut().enumerate() {
                p.punct(if i == 0 { "(" } else { "," })?;
                *e = p.expr()?;
            }
            p.punct(")")?;
            Ok(Box::new(of))
        })
    }

    fn parenthesised(&mut self) -> Result<Node, TextError> {
        self.punct("(")?;
        let a = self.node()?;
        // Superfluous parentheses are harmless; printing drops them.
        if self.take(")") {
            return Ok(a);
        }
        let op_at = self.at;
        let Kind::Punct(op) = self.peek() else {
            return self.expected("an operator or `)`");
        };
        self.advance();
        let b = self.node()?;
        let node = match (a, bin_op(op), b) {
            (Node::Cond(a), None, Node::Cond(b)) if op == "&&" => {
                Node::Cond(Cond::And(Box::new(a), Box::new(b)))
            }
            (Node::Cond(a), None, Node::Cond(b)) if op == "||" => {
                Node::Cond(Cond::Or(Box::new(a), Box::new(b)))
            }
            (Node::Expr(a), Some(op), Node::Expr(b)) => {
                Node::Expr(Expr::Bin(op, Box::new(a), Box::new(b)))
            }
            _ => {
                self.at = op_at;
                return self.expected("an operator that fits both sides, or `)`");
            }
        };
        self.punct(")")?;
        Ok(node)
    }
}

fn bin_op(op: &str) -> Option<BinOp> {
    Some(match op {
        "+" => BinOp::Add,
        "-" => BinOp::Sub,
        "&" => BinOp::And,
        "|" => BinOp::Or,
        "<<" => BinOp::Shl,
        ">>" => BinOp::Shr,
        _ => return None,
    })
}
