"""Dialogues of each kind, as messages in a file."""

from typing import Any

ASK = {"role": "user", "content": "Who wrote Emma?"}
ANSWER = {"role": "assistant", "content": "Jane Austen."}
WHY = {"role": "user", "content": "Why?"}
BECAUSE = {"role": "assistant", "content": "I think so."}
SYSTEM = {"role": "system", "content": "Be brief."}
WEATHER = {"role": "user", "content": "How is the weather in Paris?"}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
]
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}],
}
RESULT = {"role": "tool", "content": "sunny"}

PLAIN: dict[str, list[dict[str, Any]]] = {
    "single turn": [ASK, ANSWER],
    "several turns": [
        ASK,
        ANSWER,
        WHY,
        BECAUSE,
    ],
    "white space around": [ASK, {"role": "assistant", "content": "\nJane Austen wrote Emma.\n\n"}],
    "a space before": [ASK, {"role": "assistant", "content": " yes"}],
    "more than letters": [
        {"role": "user", "content": "Zwölf — 十二?\n\n  Indented."},
        {"role": "assistant", "content": "“Ja” 🦆\n\n\tso."},
    ],
}
WITH_SYSTEM = {"system": [SYSTEM, ASK, ANSWER]}
WITH_TOOLS: dict[str, list[dict[str, Any]]] = {
    "a call": [WEATHER, CALL],
    "what a call brought": [SYSTEM, WEATHER, CALL, RESULT, {"role": "assistant", "content": "It is sunny."}],
}
THINKING = {
    "a thought beside": [ASK, ANSWER | {"reasoning_content": "Emma is by Austen."}],
    "a thought in the text": [ASK, ANSWER | {"content": "<think>\nEmma is by Austen.\n</think>\n\nJane Austen."}],
    "an earlier thought": [
        ASK,
        ANSWER | {"reasoning_content": "Emma is by Austen."},
        WHY,
        BECAUSE | {"reasoning_content": "Be brief."},
    ],
}
