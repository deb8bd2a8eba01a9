"""The shapes of chat templates that models have, written anew: each model family's marks, turns, ends and refusals.

What is kept of the public ones is what tokens depend on: where BOS stands, what ends a turn, in the middle and at the
end, what begins an answer, where white space is, what happens to a system turn, to tools, calls and thoughts.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A chat template with the special tokens it writes and what is known of it."""

    name: str
    template: str
    turn_end: str  # what ends an answer that is a dialogue's last turn
    bos: str = "<s>"
    eos: str = "</s>"
    marks: tuple[str, ...] = ()  # further special tokens
    declared: tuple[str, ...] = ()  # the generation config's ends
    system: bool = True  # whether it takes a system turn
    tools: bool = False  # whether it writes tools, calls and what they brought
    thinking: bool = False  # whether it writes `reasoning_content`
    parted: bool = False  # whether what begins an answer is missing before a finished one
    call_end: str = ""  # what ends an answer that is a call, where that is something else


_ALTERNATE = (
    "{% for m in turns %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% endfor %}"
)
_SYSTEM_APART = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
)

CHATML = Format(
    "chatml",
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "<|im_end|>",
    eos="<|endoftext|>",
    marks=("<|im_start|>", "<|im_end|>"),
)
SMOLLM = Format(  # BOS is the mark of every turn
    "smollm2",
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe helpful.<|im_end|>\n' }}{% endif %}"
    + CHATML.template,
    "<|im_end|>",
    bos="<|im_start|>",
    eos="<|im_end|>",
)
LLAMA2 = Format(
    "llama2",
    _SYSTEM_APART + _ALTERNATE + "{% for m in turns %}{% if m.role == 'user' %}"
    "{% set first = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' if loop.first and system else '' %}"
    "{{ bos_token + '[INST] ' + first + m.content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "</s>",
)
LLAMA3 = Format(
    "llama3",
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\n' }}{% if tools %}{{ 'Environment: ipython\n' }}{% endif %}"
    "{{ system | trim }}{% for tool in tools or [] %}{{ '\n' + (tool | tojson) }}{% endfor %}{{ '<|eot_id|>' }}"
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "{{ '<|start_header_id|>ipython<|end_header_id|>\n\n' + (m.content | tojson) + '<|eot_id|>' }}"
    "{% elif m.tool_calls %}"
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('one tool call at once') }}{% endif %}"
    "{% set call = m.tool_calls[0].function %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    """{{ '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}' }}"""
    "{{ '<|eom_id|>' if tools and loop.last else '<|eot_id|>' }}"
    "{% else %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + (m.content | trim) + '<|eot_id|>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "<|eot_id|>",
    bos="<|begin_of_text|>",
    eos="<|end_of_text|>",
    marks=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"),
    declared=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    tools=True,
    call_end="<|eom_id|>",
)
_GEMMA_TURNS = (
    "{% for m in turns %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ (system + '\n\n' if loop.first and system else '') + (m.content | trim) + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA1 = Format(
    "gemma1",
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% set turns, system = messages, '' %}" + _ALTERNATE + _GEMMA_TURNS,
    "<end_of_turn>",
    bos="<bos>",
    eos="<eos>",
    marks=("<start_of_turn>", "<end_of_turn>"),
    system=False,
)
GEMMA3 = Format(
    "gemma3",
    "{{ bos_token }}" + _SYSTEM_APART + _ALTERNATE + _GEMMA_TURNS,
    "<end_of_turn>",
    bos="<bos>",
    eos="<eos>",
    marks=("<start_of_turn>", "<end_of_turn>"),
    declared=("<eos>", "<end_of_turn>"),
)
MISTRAL1 = Format(
    "mistral-v1",
    "{{ bos_token }}{% set turns = messages %}"
    + _ALTERNATE
    + "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}",
    "</s>",
    system=False,
)
_MISTRAL_TURNS = (
    "{% for m in turns %}{% if m.role == 'user' %}"
    "{% if tools and loop.revindex0 <= depth %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}"
    "{% endif %}{{ '[INST]' + gap + (system + '\n\n' if loop.last and system else '') + m.content + '[/INST]' }}"
    "{% elif m.role == 'tool' %}{{ '[TOOL_RESULTS]' + ({'content': m.content} | tojson) + '[/TOOL_RESULTS]' }}"
    "{% elif m.tool_calls %}"
    "{{ '[TOOL_CALLS]' + (m.tool_calls | map(attribute='function') | list | tojson) + eos_token }}"
    "{% else %}{{ gap + m.content + eos_token }}{% endif %}{% endfor %}"
)
_MISTRAL_MARKS = (
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)
MISTRAL3 = Format(
    "mistral-v3",
    _SYSTEM_APART + "{% set gap, depth = ' ', 9 %}{{ bos_token }}" + _MISTRAL_TURNS,
    "</s>",
    marks=_MISTRAL_MARKS,
    tools=True,
)
MISTRAL7 = Format(
    "mistral-v7",
    _SYSTEM_APART
    + "{% set gap, depth = '', 9 %}{{ bos_token }}{% if system %}"
    + "{{ '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}{% set system = '' %}{% endif %}"
    + _MISTRAL_TURNS,
    "</s>",
    marks=(*_MISTRAL_MARKS, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    tools=True,
)
ZEPHYR = Format(  # its marks are words like any other
    "zephyr",
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    "</s>",
)
PHI3 = Format(  # the end of a turn, and then the end of the dialogue
    "phi3",
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "<|end|>",
    eos="<|endoftext|>",
    marks=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
)
_QWEN_SYSTEM = (
    "{% if tools %}{{ '<|im_start|>system\n' + (messages[0].content if messages[0].role == 'system' else default) }}"
    "{{ '\n\n# Tools\n<tools>' }}{% for tool in tools %}{{ '\n' + (tool | tojson) }}{% endfor %}"
    "{{ '\n</tools><|im_end|>\n' }}"
    "{% elif messages[0].role == 'system' %}{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
    "{% elif default %}{{ '<|im_start|>system\n' + default + '<|im_end|>\n' }}{% endif %}"
)
_QWEN_CALLS = (
    "{% for call in m.tool_calls or [] %}{{ '\n' if not loop.first or content else '' }}"
    """{{ '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}"""
    "{{ (call.function.arguments | tojson) + '}\n</tool_call>' }}{% endfor %}"
)
_QWEN_RESULT = (
    "{% elif m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\n<tool_response>\n' + m.content + '\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}"
)
QWEN25 = Format(
    "qwen2.5",
    "{% set default = 'You are Q.' %}" + _QWEN_SYSTEM + "{% for m in messages %}{% set content = m.content or '' %}"
    "{% if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "{{ '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}"
    "{% elif m.role == 'assistant' %}{{ '<|im_start|>assistant\n' + content }}"
    + _QWEN_CALLS
    + "{{ '<|im_end|>\n' }}"
    + _QWEN_RESULT
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "<|im_end|>",
    bos="",
    eos="<|im_end|>",
    marks=("<|im_start|>", "<|endoftext|>", "<tool_call>", "</tool_call>"),
    declared=("<|im_end|>", "<|endoftext|>"),
    tools=True,
)
_SPLIT_THOUGHTS = (
    "{% set content, thoughts = m.content or '', m.reasoning_content or '' %}"
    "{% if not thoughts and '</think>' in content %}"
    "{% set thoughts = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
)
QWEN3 = Format(  # a think block before every last answer, empty if there was no thought; none before earlier ones
    "qwen3",
    "{% set default = '' %}{% set ns = namespace(last=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    + _QWEN_SYSTEM
    + "{% for m in messages %}"
    + _SPLIT_THOUGHTS
    + "{% if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% elif m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% if loop.index0 > ns.last and (loop.last or thoughts) %}"
    "{{ '<think>\n' + thoughts + '\n</think>\n\n' }}{% endif %}{{ content }}"
    + _QWEN_CALLS
    + "{{ '<|im_end|>\n' }}"
    + _QWEN_RESULT
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
    "<|im_end|>",
    bos="",
    eos="<|im_end|>",
    marks=("<|im_start|>", "<|endoftext|>", "<tool_call>", "</tool_call>", "<think>", "</think>"),
    declared=("<|im_end|>", "<|endoftext|>"),
    tools=True,
    thinking=True,
)
DEEPSEEK_R1 = Format(  # answers begin with a thought, and finished ones have lost theirs
    "deepseek-r1",
    _SYSTEM_APART + "{{ bos_token + system }}{% for m in turns %}{% if m.role == 'user' %}{{ '<|User|>' + m.content }}"
    "{% else %}{{ '<|Assistant|>' + m.content.split('</think>')[-1] + '<|end_of_sentence|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}",
    "<|end_of_sentence|>",
    bos="<|begin_of_sentence|>",
    eos="<|end_of_sentence|>",
    marks=("<|User|>", "<|Assistant|>", "<think>", "</think>"),
    parted=True,
)
R1_KEEPING = Format(  # the same, but the last answer's thought is written, in the place where the prompt begins it
    "r1-keeping",
    _SYSTEM_APART
    + "{{ bos_token + system }}{% for m in turns %}"
    + _SPLIT_THOUGHTS
    + "{% if m.role == 'user' %}{{ '<|User|>' + content }}"
    "{% else %}{{ '<|Assistant|>' + ('<think>\n' + thoughts + '\n</think>\n\n' if loop.last else '') + content }}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}",
    "<|end_of_sentence|>",
    bos="<|begin_of_sentence|>",
    eos="<|end_of_sentence|>",
    marks=("<|User|>", "<|Assistant|>", "<think>", "</think>"),
    thinking=True,
)
_COHERE_MARKS = (
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
)
_COHERE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' }}"
    "{{ {'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}[m.role] }}"
    "{{ opened + m.content.strip() + shut if m.role == 'assistant' else m.content.strip() }}"
    "{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
COHERE = Format(
    "cohere",
    "{% set opened, shut = '', '' %}" + _COHERE,
    "<|END_OF_TURN_TOKEN|>",
    bos="<BOS_TOKEN>",
    eos="<|END_OF_TURN_TOKEN|>",
    marks=_COHERE_MARKS,
)
COHERE_R7B = Format(  # an answer has marks of its own inside of its turn, and the tokenizer another end of text
    "cohere-r7b",
    "{% set opened, shut = '<|START_RESPONSE|>', '<|END_RESPONSE|>' %}" + _COHERE,
    "<|END_OF_TURN_TOKEN|>",
    bos="<BOS_TOKEN>",
    eos="<EOS_TOKEN>",
    marks=(*_COHERE_MARKS, "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
)
_OLMO_TURNS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|assistant|>\n' + m.content + eos_token + ('' if loop.last and bare else '\n') }}"
    "{% else %}{{ '<|' + m.role + '|>\n' + m.content + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
OLMO = Format(  # BOS is the end of text
    "olmo",
    "{% set bare = false %}{{ eos_token }}" + _OLMO_TURNS,
    "<|endoftext|>",
    bos="",
    eos="<|endoftext|>",
)
OLMO2 = Format(
    "olmo2",
    "{% set bare = true %}{{ bos_token }}" + _OLMO_TURNS,
    "<|endoftext|>",
    bos="<|endoftext|>",
    eos="<|endoftext|>",
)
HARMONY = Format(  # channels, several messages in one answer, and one end for the last of them only
    "gpt-oss",
    "{{ '<|start|>system<|message|>Reasoning: low<|end|>' }}{% if messages[0].role == 'system' or tools %}"
    "{{ '<|start|>developer<|message|>' }}"
    "{% if messages[0].role == 'system' %}{{ '# Instructions\n' + messages[0].content }}{% endif %}"
    "{% for tool in tools or [] %}{{ '\n# Tool ' + (tool | tojson) }}{% endfor %}{{ '<|end|>' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}"
    "{% elif m.role == 'tool' %}{{ '<|start|>functions to=assistant<|message|>' + (m.content | tojson) + '<|end|>' }}"
    "{% elif m.role == 'assistant' %}{% if m.thinking and loop.last and not add_generation_prompt %}"
    "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
    "{% if m.tool_calls %}{% set call = m.tool_calls[0].function %}"
    "{{ '<|start|>assistant to=functions.' + call.name + '<|channel|>commentary json<|message|>' }}"
    "{{ (call.arguments | tojson) + '<|call|>' }}"
    "{% else %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
    "<|return|>",
    bos="<|startoftext|>",
    eos="<|return|>",
    marks=("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>"),
    declared=("<|return|>", "<|call|>"),
    tools=True,
    thinking=True,
    call_end="<|call|>",
)

FORMATS = (
    CHATML,
    SMOLLM,
    LLAMA2,
    LLAMA3,
    GEMMA1,
    GEMMA3,
    MISTRAL1,
    MISTRAL3,
    MISTRAL7,
    ZEPHYR,
    PHI3,
    QWEN25,
    QWEN3,
    DEEPSEEK_R1,
    R1_KEEPING,
    COHERE,
    COHERE_R7B,
    OLMO,
    OLMO2,
    HARMONY,
)
