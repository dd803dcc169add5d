"""What each key of a policy file means, with its unit and its default: for editors, in the schema, and for people."""

from __future__ import annotations

DESCRIPTIONS = {
    "Policy.version": "The version of this language. 1 is the only one; it is the default.",
    "Policy.name": "What plans, logs and traces call this policy. Default: the name of the file.",
    "Policy.extends": "Another file, from the folder of this one, or the name of a packaged policy. This file says "
    "what is different: mappings are merged key by key, null takes an inherited key away, rules are changed by their "
    "names, and new ones go before the inherited.",
    "Policy.variables": "Names that ${NAME} may take from the environment: a list, or a mapping from names to "
    "defaults. DEVSYNTH_…, LOCAL_MODEL…, LMSTUDIO_…, LM_STUDIO_… and OPENAI_MODEL need not be listed. What looks like "
    "a secret is refused.",
    "Policy.defaults": "Keys of rules, for each rule that does not say them itself.",
    "Policy.models": "Facts of the models that rules may name. What is not said is taken from the catalogue, where it "
    "knows the model.",
    "Policy.rules": "The first rule whose `when` holds decides. The last one must hold for all requests.",
    "Policy.timeouts": "Four clocks, in seconds.",
    "Policy.retry": "How often to ask one model, and how long to wait between.",
    "Policy.access": "What roles may ask for. Default: every role all.",
    "Policy.unknown_price": "What a model without a known price may cost where there is a ceiling. `refuse` (the "
    "default): it is not asked there. `assume`: reckon with this price.",
    "Policy.explore": "The share of requests (0 to 1) which ask first a model whose speed nobody has measured, where a "
    "rule prefers the fastest. Default: 0.05.",
    "Policy.limits": "What is sent at most, by the names of providers and of models; both hold.",
    "Policy.budgets": "What may be spent in a span of time.",
    "Policy.telemetry": "What traces may show.",
    "Telemetry.content": "Whether prompts and answers may be shown on spans, where the environment wants it, too "
    "(OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT). Default: false.",
    "Policy.tests": "Requests, and what is to be decided of them. Not inherited.",
    "Model.provider": "Who serves it: openai, anthropic, lmstudio, local, litellm, stub, a registered name, or the "
    "dotted path of a class.",
    "Model.model": "The name that the provider knows it by. Default: its key here.",
    "Model.base_url": "Where a server of your own is, with the /v1 at its end.",
    "Model.api_key_env": "The name of the variable that holds the key, never the key itself.",
    "Model.path": "A GGUF file, for the provider local.",
    "Model.price": "`free`, `catalogue` (it must be there), or USD for a million tokens. Default: the catalogue's; "
    "unknown is never zero.",
    "Model.context_window": "Tokens of prompt and answer together. Default: the catalogue's.",
    "Model.max_output_tokens": "Tokens that an answer has at most. Default: the catalogue's.",
    "Model.abilities": "All that it can do. Default: the catalogue's; of a model that it does not know, chat.",
    "Model.quality": "How good it is, from 0 to 1, by your own judgement. Default: not known.",
    "Model.latency": "How fast it is, until it is measured.",
    "Model.tags": "Words of your own; tag:WORD among the models of a rule stands for all that have it.",
    "Model.transport": "`auto` (the default) sends with our own wire where that is proved; `litellm` has LiteLLM send.",
    "Model.propagate": "Whether its server is told which trace asks (traceparent). Default: LM Studio, this machine "
    "and private addresses are told, nobody else.",
    "Price.input_usd_per_1m": "USD for a million tokens of the prompt.",
    "Price.output_usd_per_1m": "USD for a million tokens of the answer.",
    "Price.cached_input_usd_per_1m": "USD for a million tokens of the prompt that were cached. Default: as input.",
    "Price.cache_write_usd_per_1m": "USD for a million tokens of the prompt put into the cache. Default: as input.",
    "Price.reasoning_usd_per_1m": "USD for a million tokens of reasoning. Default: as output.",
    "Latency.first_token_s": "Seconds until the answer begins.",
    "Latency.tokens_per_s": "Tokens in a second from then on.",
    "Rule.name": "What plans, logs and traces call this rule. One rule, one name.",
    "Rule.when": "What a request must be like; all of it must hold. Default: every request.",
    "Rule.models": "Names of models, or tag:WORD for all models with that tag, in the order of the file.",
    "Rule.prefer": "`listed` (the default): in the order of `models`; `cheapest`, `fastest`, `best`; or weights.",
    "Rule.on_break": "What a stream does that is cut after its first text: `raise` (the default) an error with that "
    "text, or `continue`: the next model goes on from there, and the answer, the trace and the piece say so.",
    "Rule.hedge": "Ask the next model too when the first is slow to begin; whoever begins first answers, and both are "
    "paid. Default: no.",
    "Rule.coalesce": "Which equal requests of one project, under way at the same time, share one answer. `auto` (the "
    "default): those that would get the same one, embeddings and temperature 0; `always`; `never`.",
    "Rule.join_embeddings_s": "How long texts to embed wait for those of other requests of one project, to be asked "
    "for in one, in seconds from 0 (those of the same moment) to 1. Default: each is asked by itself.",
    "Rule.on_content_filter": "What a model's content policy refuses: `raise` (the default), or `next` to show it to "
    "the next model.",
    "Rule.on_auth": "Where a key is refused: ask the `next` model (the default), or `raise`.",
    "Rule.cache": "Keep whole answers, and give them to equal requests of the same project and role. Default: no.",
    "Keep.ttl_s": "Seconds for which an answer is kept. Default: 3600.",
    "Keep.sampled": "Whether answers at a temperature above 0 are kept as well. Default: false.",
    "Hedge.after": "How long to wait for the first: p50, p75, p90, p95 (the default) or p99 of its times to the first "
    "token, as measured of late, or seconds.",
    "Hedge.max_extra": "The share of requests, 0 to 1, that may be asked twice. Default: 0.05.",
    "max_cost_usd": "USD that the request may cost in the worst case, over all attempts. Default: no ceiling.",
    "max_expected_cost_usd": "USD that one answer of the expected length may cost. Default: no ceiling.",
    "max_latency_s": "Seconds in which the whole answer should be there; models whose estimate misses it are not "
    "asked. Default: no target.",
    "first_token_s": "Seconds in which the answer should begin. Default: no target.",
    "min_quality": "Models of a lower quality (0 to 1) are not asked, whatever fails. Default: no floor.",
    "When.complexity": "What the analyzer makes of the prompt, from 0 to 1.",
    "When.input_tokens": "Tokens of the prompt, as estimated.",
    "When.task": "One of these tasks.",
    "When.tags": "Has one of these tags.",
    "When.project": "One of these projects.",
    "When.role": "One of these roles.",
    "When.needs": "Needs all of these.",
    "When.modality": "What goes in or comes out beside text is one of these.",
    "When.time_of_day": "The request comes at this time.",
    "When.all": "All of these hold.",
    "When.any": "One of these holds, or more.",
    "When.not": "This does not hold.",
    "Range.above": "More than this.",
    "Range.below": "Less than this.",
    "Range.between": "From the first to the second, both included.",
    "TimeOfDay.from": 'The first minute, as "22:00". Default: "00:00".',
    "TimeOfDay.to": 'The minute after the last, as "06:00"; past midnight, if it is the earlier. Default: "24:00".',
    "TimeOfDay.zone": "A time zone, as Europe/Berlin. Default: UTC.",
    "TimeOfDay.days": "The days on which it begins. Default: all.",
    "Weights.quality": "How much quality counts. Default: 0.",
    "Weights.cost": "How much the expected cost counts. Default: 0.",
    "Weights.latency": "How much the expected latency counts. Default: 0.",
    "Assume.assume": "The price to reckon with.",
    "Timeouts.connect_s": "Seconds to connect. Default: 5.",
    "Timeouts.first_token_s": "Seconds to the first content of an answer. Default: 20.",
    "Timeouts.idle_s": "Seconds between two pieces of an answer. Default: 15.",
    "Timeouts.total_s": "Seconds for the whole request, over all attempts. Default: 120.",
    "Retry.attempts": "How often one model is asked, the first time included. Default: 3.",
    "Retry.initial_s": "Seconds of the first wait at most; each next bound is twice that. Default: 0.5.",
    "Retry.cap_s": "Seconds that a wait never exceeds. Default: 8.",
    "Retry.budget": "The share of the requests, 0 to 1, that may be followed by a retry at the same model, over all "
    "models; a retry every five seconds is always allowed, and ten at once. Default: 0.1.",
    "Access.role": "The role, or several; `*` is every role that no other entry names, and a request without one.",
    "Access.models": "The only models it may use, or tag:WORD; an empty list is none. Default: all.",
    "RateLimits.requests_per_minute": "Requests in any minute. Default: no limit.",
    "RateLimits.tokens_per_minute": "Tokens in any minute, of prompts and answers. Default: no limit.",
    "RateLimits.concurrent": "Requests at the same time. Default: no limit.",
    "RateLimits.per_project": "What each project is let through at most. Default: no limit but the above.",
    "Budget.scope": "For each project, role, task, process or run of code, or for all who use a policy of this name.",
    "Budget.limit_usd": "USD that may be spent.",
    "Budget.per": "The span of time in which; `call`: by each request. Default: day; a run has only total.",
    "Budget.when_spent": "`refuse` requests (the default), `degrade`: ask models that can still be paid, or `warn`.",
    "Budget.when_unavailable": "Where the ledger can not be written: `refuse` requests (the default), or `allow` them.",
    "Budget.zone": "The time zone by whose clocks it begins anew, as Europe/Berlin. Default: UTC.",
    "Example.prompt": "The prompt.",
    "Example.texts": "Texts to embed, in place of a prompt.",
    "Example.system_prompt": "The system prompt.",
    "Example.task": "The request's task.",
    "Example.project": "The request's project.",
    "Example.role": "The request's role.",
    "Example.tags": "The request's tags.",
    "Example.needs": "What the request needs.",
    "Example.complexity": "In place of what the analyzer makes of the prompt: 0 to 1.",
    "Example.input_tokens": "In place of the estimate of the prompt's tokens.",
    "Example.max_tokens": "Tokens that the answer may have. Default: 1000.",
    "Example.at": "The moment of the request in ISO 8601, for rules with a `time_of_day`.",
    "Example.expect": "What is to be decided; what is not said may be anything.",
    "Expect.rule": "The rule that decides.",
    "Expect.first": "The model that is asked first.",
    "Expect.models": "The models that are asked, in their order.",
    "Expect.rejected": "Models that must not be asked.",
    "Expect.fails": "The error in place of a decision.",
}
"""By type and key; a key alone stands for all types that have it and no line of their own."""


def describe(owner: str, key: str) -> str | None:
    """What *key* of the type *owner* means, if it is written down."""
    return DESCRIPTIONS.get(f"{owner}.{key}") or DESCRIPTIONS.get(key)
